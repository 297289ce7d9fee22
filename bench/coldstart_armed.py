"""Armed containers on the engine: telling them from others, and what they cost."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.coldstart_parts import command

WAITING = "/dev/.knoll/arm"


def is_armed(container: str) -> bool:
    """Return whether a container waits for its release. Args: container: id."""
    done = subprocess.run(["docker", "top", container, "-eo", "pid,args"], capture_output=True, text=True)
    return f"{WAITING} " in done.stdout


def bytes_of_each(services: Sequence[str]) -> float:
    """Return the mean memory of the armed instances of Services.

    That is what the kernel charges to the app's container and its sandbox, and the engine's process for both (its
    proportional set size). It is read from this machine's /proc, so the engine has to run here.
    """
    total = 0.0
    for service in services:
        label = f"label=serving.knative.dev/service={service}"
        (container,) = command("docker", "ps", "-q", "--filter", label, "--filter", "label=knoll.dev/armed").split()
        inspected = json.loads(command("docker", "inspect", container))[0]
        sandbox = json.loads(command("docker", "inspect", inspected["Config"]["Labels"]["knoll.dev/sandbox"]))[0]
        pid = inspected["State"]["Pid"]
        total += _charged(pid) + _charged(sandbox["State"]["Pid"]) + _proportional(_parent(pid))
    return total / len(services)


def _charged(pid: int) -> int:
    """What the memory cgroup of a process is charged."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        v1, v2 = (
            Path(f"/sys/fs/cgroup/memory{path}/memory.usage_in_bytes"),
            Path(f"/sys/fs/cgroup{path}/memory.current"),
        )
        if "memory" in controllers.split(",") and v1.exists():
            return int(v1.read_text())
        if not controllers and v2.exists():
            return int(v2.read_text())
    raise SystemExit(f"process {pid} has no memory cgroup that can be read")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _proportional(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
