"""`knoll node rm` against a real API, with a Docker command that records its calls."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from knoll.cli.node import rm
from knoll.cluster.engine_cli import EngineError
from knoll.cluster.node_folder import NodeFolder
from knoll.values.errors import ConflictError, NotFoundError
from tests.component.api import test_machines
from tests.component.api.conftest import Running

pytestmark = pytest.mark.redis

_DOCKER = """#!/bin/sh
echo "$@" >> {folder}/calls
if [ "$1" = info ]; then cat {folder}/info; exit; fi
cat {folder}/refusal >&2
test ! -s {folder}/refusal
"""


class Docker:
    """A `docker` in PATH: of a Swarm manager that refuses to remove nodes while `refusal` is set."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = folder / "docker"
        command.write_text(_DOCKER.format(folder=folder))
        command.chmod(0o755)
        (folder / "calls").touch()
        self.refuse("")
        self.manages(True)

    def refuse(self, message: str) -> None:
        (self._folder / "refusal").write_text(message)

    def manages(self, manages: bool) -> None:
        swarm = {"LocalNodeState": "active", "NodeID": "engine1", "ControlAvailable": manages}
        (self._folder / "info").write_text(json.dumps({"Swarm": swarm}))

    @property
    def removed(self) -> list[str]:
        lines = (self._folder / "calls").read_text().splitlines()
        return [line.split()[-1] for line in lines if line.startswith("node rm")]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Docker(folder)


@pytest.fixture
async def cluster(api: Running, tmp_path: Path) -> Running:
    """An API with the machines n1, which has the engine here, and n2; neither reports."""
    for number in (1, 2):
        await test_machines.joined(api, NodeFolder(tmp_path / f"n{number}"), f"n{number}")
        spec = {"providerID": f"docker://engine{number}"}
        metadata = {"name": f"n{number}", "uid": f"u{number}"}
        await api.store.create("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
    return api


async def removal(api: Running, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, rm, ["--server", api.url, *arguments])


async def exists(api: Running, resource: str, namespace: str, name: str) -> bool:
    try:
        await api.store.get(resource, namespace, name)
    except NotFoundError:
        return False
    return True


async def test_a_removal_that_docker_refused_can_be_repeated(cluster: Running, docker: Docker) -> None:
    docker.refuse("Error response from daemon: rpc error: the swarm has no leader")
    refused = await removal(cluster, "n2")
    assert isinstance(refused.exception, EngineError)
    assert not await exists(cluster, "serviceaccounts", "kube-system", "node-n2")
    docker.refuse("")
    done = await removal(cluster, "n2")
    assert (done.exit_code, docker.removed) == (0, ["engine2", "engine2"])
    assert not await exists(cluster, "nodes", "", "n2")


async def test_an_engine_that_has_left_the_swarm_does_not_prevent_a_removal(cluster: Running, docker: Docker) -> None:
    docker.refuse("Error: No such node: engine2")
    assert (await removal(cluster, "n2")).exit_code == 0
    assert not await exists(cluster, "nodes", "", "n2")


async def test_the_first_machine_cannot_be_removed(cluster: Running, docker: Docker) -> None:
    refused = await removal(cluster, "n1", "--force")
    assert isinstance(refused.exception, ConflictError)
    assert "n1 is this machine" in str(refused.exception)
    assert await exists(cluster, "serviceaccounts", "kube-system", "node-n1")
    assert await exists(cluster, "nodes", "", "n1")
    assert docker.removed == []


async def test_nothing_is_removed_where_docker_does_not_manage_the_machines(cluster: Running, docker: Docker) -> None:
    docker.manages(False)
    refused = await removal(cluster, "n2")
    assert isinstance(refused.exception, ConflictError)
    assert "run this on the first machine" in str(refused.exception)
    assert await exists(cluster, "serviceaccounts", "kube-system", "node-n2")
