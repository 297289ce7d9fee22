"""Makes a cluster of two new machines with the commands of docs/how-to/several-machines.md."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knoll.cluster import bundle
from knoll.process.settings import BUILDKIT_IMAGE
from tests.conftest import need
from tests.machines import Machine, Machines, Site, available, machines
from tests.waiting import eventually_sync

ROOT = Path(__file__).parents[3]
IMAGE = os.environ.get("KNOLL_TEST_IMAGE", "knoll")
IMAGES = (IMAGE, "redis:8", BUILDKIT_IMAGE)
SITE = Site("knoll-lab4", "10.80.0")
"""Of its own: other tests may keep the usual one as long as they run."""
SECONDS = 300
pytestmark = [pytest.mark.docker, pytest.mark.machines]


@pytest.fixture(scope="module")
def site() -> Iterator[Machines]:
    need("MACHINES", available())
    missing = [
        name for name in IMAGES if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode
    ]
    need("PLATFORM_IMAGE", not missing)
    with machines(2, site=SITE) as started:
        archive = started[1].site.folder / "images.tar"
        subprocess.run(["docker", "save", "--output", str(archive), *IMAGES], check=True)
        # The second machine has no image: it gets all of them from the first.
        started[1].docker("load", "--input", str(archive))
        archive.unlink()
        yield started


class Shell:
    """A user's shell on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.folder / "platform"
        self.home = machine.folder / "home"
        self.transcript: list[str] = []

    def __call__(self, *command: str, check: bool = True, cwd: Path | None = None, **more: Any) -> str:
        environment = {
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
            "HOME": str(self.home),
            "DOCKER_HOST": "unix:///run/docker.sock",
            "KNOLL_DATA": str(self.home / "data"),
            **more,
        }
        # A command that enters another mount namespace begins in its root folder.
        there = ("sh", "-c", 'cd "$0" && exec "$@"', str(cwd or self.machine.folder), *command)
        done = self.machine.run(*there, check=False, env=environment, timeout=SECONDS)
        self.transcript.append(f"{self.machine.name}$ {' '.join(command)}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0 or not check, "\n".join(self.transcript)[-6000:]
        return done.stdout if check else done.stdout + done.stderr


@pytest.fixture(scope="module")
def first(site: Machines) -> Shell:
    """The first machine, with a platform on this machine alone."""
    shell = Shell(site[1])
    shell.home.mkdir()
    for name in bundle.FILES:
        (shell.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, shell.folder / name)
    (shell.folder / ".env").write_text(f"KNOLL_IMAGE={IMAGE}\n")
    shell("docker", "compose", "up", "--detach", "--no-build", "--wait", cwd=shell.folder)
    return shell


@pytest.fixture(scope="module")
def cluster(site: Machines, first: Shell) -> tuple[Shell, Shell]:
    """Both machines, as nodes of one platform."""
    second = Shell(site[2])
    second.home.mkdir()
    first("knoll", "cluster", "init", "--address", site[1].address, "--name", "n1", cwd=first.folder)
    line = first("knoll", "node", "join-command", cwd=first.folder).strip().removesuffix("sudo sh")
    second("sh", "-c", f"{line} sh", KNOLL_HOME=str(second.machine.folder / "knoll"), KNOLL_NODE_NAME="n2")
    return first, second


def test_the_single_machine_is_one_node_with_its_objects(first: Shell) -> None:
    def is_ready() -> bool:
        return "Ready" in first("knoll", "node", "ls")

    eventually_sync(is_ready, 60, "the node")
    assert first("knoll", "node", "ls").splitlines()[1].startswith("knoll ")


def test_a_second_machine_joins_with_one_line(cluster: tuple[Shell, Shell]) -> None:
    first, second = cluster

    def both() -> bool:
        listed = json.loads(first("knoll", "node", "ls", "--output", "json"))
        return [(each["name"], each["status"]) for each in listed] == [("n1", "Ready"), ("n2", "Ready")]

    eventually_sync(both, 60, "two nodes")
    services = second("docker", "ps", "--format", "{{.Names}} {{.Status}}")
    assert "unhealthy" not in services
    # Redis listens on no address of a machine, and the ports between machines accept no plain text.
    for shell in cluster:
        listening = shell("ss", "-Hltn")
        assert ":6379" not in listening
        assert ":7443" in listening


def test_both_apis_serve_the_same_objects(cluster: tuple[Shell, Shell]) -> None:
    for shell in cluster:
        assert "n2" in shell("curl", "-fsS", "http://127.0.0.1:8001/api/v1/nodes")


def test_a_command_that_was_revoked_is_refused(cluster: tuple[Shell, Shell]) -> None:
    first, second = cluster
    line = first("knoll", "node", "join-command", cwd=first.folder).strip()
    token = line.partition("Bearer ")[2].partition("'")[0]
    first("knoll", "node", "forget", token.partition(".")[0])
    assert "401" in second("sh", "-c", line.removesuffix("| sudo sh"), check=False)


def test_a_node_is_removed_and_cut_off(cluster: tuple[Shell, Shell]) -> None:
    first, second = cluster
    assert "is running" in first("knoll", "node", "rm", "n2", check=False)
    first("knoll", "node", "drain", "n2")
    first("knoll", "node", "rm", "n2", "--force")

    def cut_off() -> bool:
        return "ok" not in second("curl", "-sS", "-m", "5", "http://127.0.0.1:8001/readyz", check=False)

    eventually_sync(cut_off, 60, "no Redis for the removed machine")
    assert "ok" in first("curl", "-fsS", "http://127.0.0.1:8001/readyz")
