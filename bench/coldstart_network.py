"""The network of a bench. It is removed when the bench ends, also by SIGINT or SIGTERM; the network of a bench that was
killed is removed before the next one starts, because its subnet is in use."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.coldstart_parts import command

PREFIX = "knoll-bench-"
_OWNER = "knoll.dev/bench-process"


@contextlib.contextmanager
def network(name: str, *options: str) -> Iterator[None]:
    """A network of the engine, removed afterwards.

    Args:
        name: begins with `PREFIX`.
        options: of `docker network create`.
    """
    remove_leftovers()
    command("docker", "network", "create", "--label", f"{_OWNER}={_process(os.getpid())}", *options, name)
    try:
        yield
    finally:
        remove(name)


def remove_leftovers(prefix: str = PREFIX) -> None:
    """Remove the networks of killed benches, with their containers. Raises: SystemExit: a bench is still running."""
    line = f'{{{{.Name}}}} {{{{.Label "{_OWNER}"}}}}'
    for listed in command("docker", "network", "ls", f"--filter=name=^{prefix}", "--format", line).splitlines():
        name, _, owner = listed.partition(" ")
        pid = int(owner.partition(".")[0] or 0)
        if not pid or _process(pid) != owner:
            remove(name)
        elif pid != os.getpid():
            raise SystemExit(f"process {pid} measures already, in the network {name}")


def remove(name: str) -> None:
    """Remove a network, with the containers in it and those of the runtime that used it."""
    platform = name.removeprefix("knoll-")  # whose instances are in it
    for condition in (f"network={name}", f"label=knoll.dev/platform={platform}"):
        if containers := command("docker", "ps", "--all", "--quiet", "--filter", condition).split():
            command("docker", "rm", "--force", "--volumes", *containers)
    command("docker", "network", "rm", name)


def _process(pid: int) -> str:
    """Return a process with its start time (`PID.CLOCKTICKS`, since ids are reused); empty when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{pid}.{fields[19]}"
