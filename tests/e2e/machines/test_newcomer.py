"""Follows docs/how-to/several-machines.md: every block that is marked for a machine is typed there, in order.

With KNOLL_TEST_TRANSCRIPT, the commands and what they printed are written to that file.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import ROOT, Shell, load_images, missing_images, single_machine
from tests.conftest import need
from tests.documents import Block, blocks
from tests.machines import SITE, Machine, Machines, Site, available, machines
from tests.waiting import eventually_sync

OWN_SITE = Site(f"{SITE.prefix}7", "10.83.0")
PAGE = ROOT / "docs/how-to/several-machines.md"
APP = "python:3.13-slim"
"""Image of the page's Service."""
PRINTED = "the printed command"
SUDO = '#!/bin/sh\nexec env "$@"\n'
"""Root does not need the real one."""
pytestmark = [pytest.mark.docker, pytest.mark.machines, pytest.mark.kubectl, pytest.mark.timeout(600)]


def prepare(machine: Machine) -> None:
    """Give a machine a folder /etc of its own, and the command `sudo`."""
    upper, work, programs = (machine.folder / name for name in ("etc", "work", "bin"))
    for folder in (upper, work, programs):
        folder.mkdir()
    machine.run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/etc,upperdir={upper},workdir={work}", "/etc")
    (programs / "sudo").write_text(SUDO)
    (programs / "sudo").chmod(0o755)


class Reader:
    """Two terminals, in which the page is followed."""

    def __init__(self, lab: Machines, first: Shell) -> None:
        self.shells = {"n1": first, "n2": Shell(lab[2])}
        self.folders = {"n1": first.folder, "n2": lab[2].folder}
        self.address = lab[1].address
        self.printed = ""
        """The command that the block before printed."""
        self.transcript: list[str] = []

    def has_free_places(self) -> bool:
        """Whether each machine runs places for instances that Swarm has created ahead."""
        places = ("docker", "ps", "--quiet", "--filter", "label=com.docker.swarm.service.name")
        return all(len(shell(*places).split()) >= 3 for shell in self.shells.values())

    def type(self, block: Block) -> str:
        """Run a block on its machine and return what it printed."""
        name, _, stands_for = block.argument.partition(", ")
        commands = self.printed if stands_for == PRINTED else block.text.replace("192.0.2.1", self.address)
        shell = self.shells[name]
        path = f"{shell.machine.folder}/bin:{ROOT}/.venv/bin:{os.environ['PATH']}"
        script = f"exec 2>&1\n{commands}"
        output = shell("bash", "-euo", "pipefail", "-c", script, cwd=self.folders[name], PATH=path)
        self.transcript.append(f"{name}$ {commands.strip()}\n{output}")
        self.printed = next((line for line in output.splitlines() if line.startswith("curl ")), "")
        return output


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    need("MACHINES", available())
    need("PLATFORM_IMAGE", not missing_images())
    with machines(2, site=OWN_SITE) as lab:
        for machine in lab:
            prepare(machine)
        # The page's image is pulled from a registry, which cannot be reached here.
        load_images(lab[1], APP)
        lab[1].docker("save", "--output", str(lab[1].folder / "app.tar"), APP)
        lab[2].docker("load", "--input", str(lab[1].folder / "app.tar"))
        made = Reader(lab, single_machine(lab[1]))
        yield made
        if target := os.environ.get("KNOLL_TEST_TRANSCRIPT"):
            Path(target).write_text("\n".join(made.transcript))


def test_a_newcomer_adds_a_machine_uses_it_and_removes_it(reader: Reader) -> None:
    typed: dict[tuple[str, str], str] = {}
    for block in blocks(PAGE):
        if block.directive != "lab":
            continue
        if "kind: Service" in block.text:
            # A person needs longer to type it.
            eventually_sync(reader.has_free_places, 60, "places for instances on both machines")
        output = typed[block.argument, block.commands()[0]] = reader.type(block)
        if "get pods -o wide" in block.text:
            pods = [line.split() for line in output.splitlines() if line.startswith("hello-")]
            assert {"n1", "n2"} <= {word for pod in pods for word in pod}, output
    listed = typed["n1", "knoll node ls"].splitlines()[1:]
    assert [line.split()[:2] for line in listed] == [["n1", "Ready"], ["n2", "Ready"]]
    assert "bad " not in typed["n1", "knoll doctor"]
    assert "was removed" in typed["n1", "knoll node rm n2"]
    second = reader.shells["n2"]
    assert not second("docker", "ps", "--all", "--quiet").strip()
    assert not second("docker", "volume", "ls", "--quiet").strip()
    assert "knoll" not in second("docker", "network", "ls", "--format", "{{.Name}}")
    assert "inactive" in second("docker", "info", "--format", "{{.Swarm.LocalNodeState}}")
    assert "knoll" not in second("nft", "list", "tables")


def test_the_first_machine_has_all_instances_afterwards(reader: Reader) -> None:
    first = reader.shells["n1"]

    def placed() -> bool:
        pods = first("kubectl", "--server", "http://127.0.0.1:8001", "get", "pods", "--no-headers", "-o", "wide")
        return pods.count("hello-") == 2 and pods.count("Running") == 2 and "n2" not in pods

    eventually_sync(placed, 60, "both instances on the first machine")
    assert first("knoll", "node", "ls").count("Ready") == 1


def test_the_end_of_the_platform_leaves_nothing(reader: Reader) -> None:
    first = reader.shells["n1"]
    first("cp", "-r", str(ROOT / "scripts"), str(first.folder / "scripts"))
    first("bash", "scripts/down.sh", "--build-cache", cwd=first.folder)
    assert not first("docker", "service", "ls", "--quiet").strip()
    assert "KNOLL_NODE" not in (first.folder / ".env").read_text()

    def nothing() -> bool:
        return not first("docker", "ps", "--all", "--quiet").strip()

    eventually_sync(nothing, 60, "no container, also none of a reservation")
    assert not first("docker", "volume", "ls", "--quiet").strip()
    # As a single machine again, with nothing of before.
    first("docker", "compose", "up", "--detach", "--no-build", "--wait", cwd=first.folder)
    eventually_sync(lambda: first("knoll", "node", "ls").count("Ready") == 1, 60, "the only node")
    assert first("knoll", "node", "ls").splitlines()[1].startswith("knoll ")
