"""The CPU time of Compose's health checks: the commands of compose.yaml, run by the engine.

For each check the engine starts a process in a container, which takes more time than the check itself. Here every check
runs in its own container, more often than in production. The CPU time of the daemon, containerd, its shims, and of the
child processes that they have waited for is counted.
"""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.coldstart_parts import command
from bench.lib.fleet import IMAGE, OWN
from knoll.values.duration import parse_duration

MEASURED_SECONDS = 21.0
_INTERVAL = "3s"
"""Interval of the measured checks: there are enough to count, and they seldom overlap, which would cost more."""
_ENGINE = ("dockerd", "containerd")
"""Prefixes of the names of the engine's processes."""
_IMAGES = {"redis": "redis:8"}
"""Service to image, where the check needs a program of the image; all other checks run in `IMAGE`."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The health check of one service."""

    service: str
    command: tuple[str, ...]
    interval: float
    """Seconds between two checks, once it is up."""


def checks_of(compose: Path = OWN / "compose.yaml") -> Sequence[HealthCheck]:
    """Return the health checks of a Compose file."""
    checks = []
    for name, service in yaml.safe_load(compose.read_text())["services"].items():
        if check := service.get("healthcheck"):
            kind, *arguments = check["test"]
            assert kind == "CMD", f"{name}: {check['test']}"
            checks.append(HealthCheck(name, tuple(arguments), float(parse_duration(check["interval"]))))
    return checks


def idle_percent(checks: Sequence[HealthCheck], port: int) -> float:
    """Return the CPU time of the checks at their intervals, in percent of a core.

    Args: port: port of 127.0.0.1 where an HTTP server answers /healthz.
    """
    seconds = _seconds_of_each(checks, port)
    return sum(seconds / check.interval for check in checks) * 100


def _seconds_of_each(checks: Sequence[HealthCheck], port: int) -> float:
    """Return the mean CPU time of one check, in seconds."""
    with _containers(checks, port) as containers:
        time.sleep(4)  # not counted: the first checks also load programs into memory
        begun, before = time.time(), _engine_seconds()
        time.sleep(MEASURED_SECONDS)
        until, spent = time.time(), _engine_seconds() - before
        number = sum(_checks_between(container, begun, until) for container in containers)
    if not number:
        raise SystemExit("the engine has carried out no health check")
    return spent / number


@contextmanager
def _containers(checks: Sequence[HealthCheck], port: int) -> Iterator[list[str]]:
    token, names = uuid.uuid4().hex[:6], []
    try:
        for check in checks:
            name, image = f"bench-health-{token}-{check.service}", _IMAGES.get(check.service, IMAGE)
            command(
                "docker", "run", "--detach", "--name", name, "--network", "host", "--entrypoint", "sleep",
                "--volume", f"{OWN / 'scripts/healthz.sh'}:/usr/local/bin/healthz:ro",
                "--health-interval", _INTERVAL, "--health-cmd", _shell(check, port), image, "1h",
            )  # fmt: skip
            names.append(name)
        yield names
    finally:
        for name in names:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True)


def _shell(check: HealthCheck, port: int) -> str:
    """Return the command of a check. `healthz` queries the given port; other commands may fail at the same cost."""
    program, *arguments = check.command
    if program == "healthz":
        arguments = ["127.0.0.1", str(port)]
    return " ".join(("exec", program, *(f"'{argument}'" for argument in arguments)))


def _checks_between(container: str, begun: float, until: float) -> int:
    """Return how many checks of a container have ended between two times. Args: begun, until: epoch seconds."""
    lines = command(
        "docker", "events", "--since", f"{begun:.6f}", "--until", f"{until:.6f}",
        "--filter", f"container={container}", "--filter", "event=exec_die",
    )  # fmt: skip
    return len(lines.splitlines())


def _engine_seconds() -> float:
    """Return the CPU time of the engine and of the child processes that it has waited for, in seconds."""
    ticks = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text()
                if fields[fields.index("(") + 1 :].startswith(_ENGINE):
                    ticks += sum(map(int, fields.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
