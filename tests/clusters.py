"""Platforms on several machines of `tests/machines.py`, set up with the commands that a user types."""

import concurrent.futures
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knoll.cluster import bundle
from knoll.process.settings import BUILDKIT_IMAGE
from tests.machines import Machine

ROOT = Path(__file__).parents[1]
IMAGE = os.environ.get("KNOLL_TEST_IMAGE", "knoll")
"""The platform's image."""
IMAGES = (IMAGE, "redis:8", BUILDKIT_IMAGE)
SECONDS = 300
"""Longest time that a command may take."""


class Shell:
    """A user's shell on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.folder / "platform"
        self.home = machine.folder / "home"
        self.home.mkdir(exist_ok=True)
        self.transcript: list[str] = []

    def __call__(self, *command: str, check: bool = True, cwd: Path | None = None, **more: Any) -> str:
        """Run a command and return its output, with that on stderr unless `check`.

        Args:
            check: fail with all commands and outputs so far if the command fails.
            cwd: folder; default: the machine's.
            more: environment variables.
        """
        there, environment = self._there(command, cwd), self._environment(more)
        done = self.machine.run(*there, check=False, env=environment, timeout=SECONDS)
        self.transcript.append(f"{self.machine.name}$ {' '.join(command)}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0 or not check, "\n".join(self.transcript)[-6000:]
        return done.stdout if check else done.stdout + done.stderr

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command that goes on; it ends with the machine at the latest."""
        return self.machine.spawn(*self._there(command, None), env=self._environment({}))

    def _there(self, command: Sequence[str], cwd: Path | None) -> Sequence[str]:
        # A command that enters another mount namespace begins in its root folder.
        return ("sh", "-c", 'cd "$0" && exec "$@"', str(cwd or self.machine.folder), *command)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
            "HOME": str(self.home),
            "DOCKER_HOST": "unix:///run/docker.sock",
            "KNOLL_DATA": str(self.home / "data"),
            **more,
        }


def missing_images() -> list[str]:
    """Return the images of a platform that this machine's own engine lacks."""
    return [
        name for name in IMAGES if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode
    ]


def load_images(machine: Machine, *more: str) -> None:
    """Copy the images of a platform, and `more`, from this machine's own engine."""
    archive = machine.folder / "images.tar"
    subprocess.run(["docker", "save", "--output", str(archive), *IMAGES, *more], check=True)
    machine.docker("load", "--input", str(archive))
    archive.unlink()


def single_machine(machine: Machine, image: str = IMAGE) -> Shell:
    """Start a platform that has this machine alone, which has the images. Args: image: the platform's."""
    shell = Shell(machine)
    for name in bundle.FILES:
        (shell.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, shell.folder / name)
    (shell.folder / ".env").write_text(f"KNOLL_IMAGE={image}\n")
    shell("docker", "compose", "up", "--detach", "--no-build", "--wait", cwd=shell.folder)
    return shell


def begin_cluster(first: Shell) -> None:
    """Make the platform of one machine the first node of several."""
    address, name = first.machine.address, first.machine.name
    first("knoll", "cluster", "init", "--address", address, "--name", name, cwd=first.folder)


def join(first: Shell, machine: Machine) -> Shell:
    """Let a new machine join the platform, with the command that the first one prints."""
    (shell,) = join_all(first, [machine])
    return shell


def join_all(first: Shell, joining: Sequence[Machine], *options: str) -> list[Shell]:
    """Let new machines join the platform at the same time, with one command that the first one prints.

    Args: options: of `knoll node join-command`.
    """
    line = first("knoll", "node", "join-command", *options, cwd=first.folder).strip().removesuffix("sudo sh")

    def joined(machine: Machine) -> Shell:
        shell = Shell(machine)
        shell.folder = machine.folder / "knoll"
        shell("sh", "-c", f"{line} sh", KNOLL_HOME=str(shell.folder), KNOLL_NODE_NAME=machine.name)
        return shell

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(joined, joining))
