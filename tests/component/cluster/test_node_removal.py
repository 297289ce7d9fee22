"""`knoll node rm` against a real API, with a Docker command that records its calls."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from knoll.cli.node import rm
from knoll.cluster.engine_cli import EngineError
from knoll.cluster.managers import MANAGER
from knoll.cluster.node_folder import NodeFolder
from knoll.values.errors import ConflictError, NotFoundError
from knoll.values.node import CONTROL_PLANE
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
    def calls(self) -> list[str]:
        return (self._folder / "calls").read_text().splitlines()

    @property
    def removed(self) -> list[str]:
        return [line.split()[-1] for line in self.calls if line.startswith("node rm")]


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
    assert "run this on a manager" in str(refused.exception)
    assert await exists(cluster, "serviceaccounts", "kube-system", "node-n2")


async def add_managers(api: Running, folder: Path, *ready: str) -> None:
    """Make n1, n2 and n3 managers, some of which respond."""
    token = await test_machines.issue(api, role=MANAGER)
    for name in ("n1", "n2", "n3"):
        answer = await test_machines.join(api, token, NodeFolder(folder / name), name)
        assert answer.status_code == 201, answer.text
        conditions = [{"type": "Ready", "status": "True" if name in ready else "Unknown"}]
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "uid": f"u{name[1:]}", "labels": {CONTROL_PLANE: ""}},
            "spec": {"providerID": f"docker://engine{name[1:]}"},
            "status": {"conditions": conditions},
        }
        try:
            stored = await api.store.get("nodes", "", name)
        except NotFoundError:
            await api.store.create("nodes", body)
        else:
            version = stored["metadata"]["resourceVersion"]
            await api.store.update("nodes", {**body, "metadata": {**body["metadata"], "resourceVersion": version}})  # type: ignore[dict-item]


async def test_a_manager_is_demoted_before_it_is_removed(cluster: Running, docker: Docker, tmp_path: Path) -> None:
    await add_managers(cluster, tmp_path, "n1", "n3")
    done = await removal(cluster, "n2")
    assert done.exit_code == 0, done.exception
    assert docker.calls[-2:] == ["node demote engine2", "node rm --force engine2"]
    assert not await exists(cluster, "serviceaccounts", "kube-system", "node-n2")


async def test_the_quorum_of_the_managers_is_kept(cluster: Running, docker: Docker, tmp_path: Path) -> None:
    await add_managers(cluster, tmp_path, "n1", "n3")
    refused = await removal(cluster, "n3")
    assert "2 are needed: start n2 first" in str(refused.exception)
    assert await exists(cluster, "serviceaccounts", "kube-system", "node-n3")
    assert docker.removed == []
    assert (await removal(cluster, "n3", "--force")).exit_code == 0
    assert docker.removed == ["engine3"]
