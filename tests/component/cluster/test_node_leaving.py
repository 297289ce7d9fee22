"""`knoll node leave` with a real API and a Docker command that records its calls."""

import asyncio
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from knoll.cli.node import leave
from knoll.cluster import bundle
from knoll.values.errors import BadRequestError, ConflictError
from tests.component.api.conftest import Running

pytestmark = pytest.mark.redis

_DOCKER = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$1 $2" in
  "info --format") echo '{{"Swarm": {{"LocalNodeState": "active"}}}}' ;;
  "ps --all" | "network ls" | "volume ls") echo "$1-1"; echo "$1-2" ;;
esac
"""


class Docker:
    """Its calls."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def calls(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(_DOCKER.format(folder=folder))
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Docker(folder / "calls")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name in (*bundle.FILES, bundle.COMMAND, "node/token"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("content")
    (home / ".env").write_text(bundle.dotenv({"KNOLL_NODE": "n2", "KNOLL_FIRST_NODE": "n1", "KNOLL_PLATFORM": "shop"}))
    return home


async def leaving(api: Running, home: Path, *options: str) -> Result:
    arguments = ["--home", str(home), "--server", api.url, *options]
    return await asyncio.to_thread(CliRunner().invoke, leave, arguments)


async def create_node(api: Running) -> None:
    metadata = {"name": "n2", "uid": "u2"}
    await api.store.create("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}})


async def test_a_machine_is_drained_before_everything_on_it_is_removed(
    api: Running, docker: Docker, home: Path
) -> None:
    await create_node(api)
    result = await leaving(api, home)
    assert result.exit_code == 0, result.output
    assert (await api.store.get("nodes", "", "n2"))["spec"]["unschedulable"]
    calls = docker.calls
    assert "stop ps-1 ps-2" in calls
    assert calls.index("stop ps-1 ps-2") < calls.index("rm --force --volumes ps-1 ps-2")
    assert {"network rm network-1 network-2", "volume rm volume-1 volume-2", "swarm leave"} <= set(calls)
    assert all("=shop" in line for line in calls if "--filter" in line)
    # The container in which the command runs has the labels of the image, but Compose has not started it.
    by_project = [line for line in calls if line.startswith("ps") and "compose.project=shop" in line]
    assert by_project
    assert all("label=com.docker.compose.container-number" in line for line in by_project)
    assert calls[-1] == "swarm leave"
    assert not await asyncio.to_thread(home.exists)
    assert "knoll node rm n2" in result.output


async def test_a_machine_that_cannot_be_drained_stays_unless_it_has_to_leave(
    api: Running, docker: Docker, home: Path
) -> None:
    refused = await leaving(api, home)  # there is no Node n2
    assert isinstance(refused.exception, ConflictError)
    assert "--no-drain" in str(refused.exception)
    assert not docker.calls
    assert (await leaving(api, home, "--no-drain")).exit_code == 0
    assert "swarm leave" in docker.calls


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, BadRequestError, "this machine is no node"),
        ({"KNOLL_NODE": "n1"}, ConflictError, "n1 is the first machine"),
    ],
    ids=["single", "first"],
)
async def test_only_a_machine_that_joined_can_leave(
    api: Running, docker: Docker, tmp_path: Path, settings: dict[str, str], error: type[Exception], message: str
) -> None:
    await asyncio.to_thread((tmp_path / ".env").write_text, bundle.dotenv(settings))
    result = await leaving(api, tmp_path)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not docker.calls
