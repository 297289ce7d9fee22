"""Telling armed containers from those whose program runs, as Docker's own client sees them."""

import subprocess
from collections.abc import Callable, Iterable

WAITING = "/dev/.knoll/arm "
Docker = Callable[..., str]
"""Runs a command of Docker's client and returns its output; empty when it fails."""


def docker(*arguments: str) -> str:
    """Run a command on this machine's engine."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True).stdout


def running(containers: Iterable[str], client: Docker = docker) -> list[str]:
    """Return those of running containers, by id, that are not armed: an armed one counts as no instance."""
    return [container for container in containers if not is_armed(container, client)]


def is_armed(container: str, client: Docker = docker) -> bool:
    """Return whether a container waits for its release."""
    if not client("inspect", "--format", '{{index .Config.Labels "knoll.dev/armed"}}', container).strip():
        return False
    return WAITING in client("top", container, "-eo", "pid,args")
