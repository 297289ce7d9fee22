"""A whole platform of a test's own: `knoll up` on free ports, its own Redis, its own name on the engine."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.buildkit import shared
from tests.conftest import free_port
from tests.e2e import armed
from tests.images import platform_name, references_of, remove_images
from tests.waiting import eventually_sync

START_SECONDS, STOP_SECONDS = 90, 90
PROCESSES = ("api", "builder", "autoscaler", "activator")


@dataclass
class Platform:
    """A running platform, and how to reach it."""

    name: str
    api: str
    """Base URL of the API."""
    gateway: str
    """Base URL of the activator."""
    https_port: int
    """Its port for https."""
    data: Path
    home: Path
    process: subprocess.Popen[str]
    environment: dict[str, str]
    """Settings that it was started with, beside those of its command line."""
    output: list[str] = field(default_factory=list)

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl against this platform, with a home of its own (it caches discovery there)."""
        command = ["kubectl", "--server", self.api, *arguments]
        environment = {**os.environ, "HOME": str(self.home), "KUBECONFIG": "/dev/null"}
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180, env=environment)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def pids(self, name: str) -> list[int]:
        """Processes of one part: the children of `knoll up` that run it (`redis` and `names` too)."""
        program = {"redis": "redis-server", "names": "dnsmasq"}.get(name, f"-m {name}")
        completed = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        lines = (line.strip().partition(" ") for line in completed.stdout.splitlines())
        return [int(pid) for pid, _, command in lines if program in command]

    def kill(self, name: str) -> None:
        """Kill -9 one part and all of its process group; `knoll up` starts it again."""
        for pid in self.pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def remove_all(self) -> None:
        """Remove what a platform that was killed has left on the engine."""
        environment = {
            **os.environ, "KNOLL_PLATFORM": self.name, "KNOLL_INSTANCE_NETWORK": f"{self.name}-instances",
        }  # fmt: skip
        subprocess.run([sys.executable, "-m", "autoscaler", "--remove-all"], env=environment, check=True, timeout=60)

    def containers(self, *filters: str) -> list[str]:
        """Ids of this platform's running containers without armed ones."""
        options = [
            f"--filter=label=knoll.dev/platform={self.name}",
            *(f"--filter={condition}" for condition in filters),
        ]
        completed = subprocess.run(["docker", "ps", "-q", *options], capture_output=True, text=True, check=True)
        return armed.running(completed.stdout.split())

    def armed_instances(self, *filters: str) -> list[str]:
        """Ids of this platform's armed app containers."""
        options = [
            f"--filter=label=knoll.dev/platform={self.name}", "--filter=label=knoll.dev/armed",
            *(f"--filter={condition}" for condition in filters),
        ]  # fmt: skip
        return [each for each in armed.docker("ps", "-q", *options).split() if armed.is_armed(each)]


@contextlib.contextmanager
def running(directory: Path, home: Path | None = None, **environment: str) -> Iterator[Platform]:
    """Start a platform, wait until all of its processes are ready, and end it with everything that it created."""
    name = platform_name("test")
    api_port, port, https_port, tls_port = free_port(), free_port(), free_port(), free_port()
    data, home = directory / "data", home or directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "knoll.cli", "up", "--data", str(data), "--platform", name, "--verbose",
               "--api-port", str(api_port), "--port", str(port), "--https-port", str(https_port), "--api-tls-port",
               str(tls_port)]  # fmt: skip
    if "KNOLL_BUILDKIT_IMAGE" not in environment:
        environment = {**shared(), **environment}
    ports = {f"KNOLL_{part}_ADMIN_PORT": str(free_port()) for part in ("ACTIVATOR", "AUTOSCALER", "BUILDER")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **ports, "NO_COLOR": "1", "COLUMNS": "400", **environment},
    )
    gateway, settings = f"http://127.0.0.1:{port}", {**ports, **environment}
    platform = Platform(name, f"http://127.0.0.1:{api_port}", gateway, https_port, data, home, process, settings)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    reader = threading.Thread(target=lambda: platform.output.extend(lines), daemon=True)
    reader.start()
    try:
        eventually_sync(lambda: _up(platform), within=START_SECONDS, condition="the platform")
        yield platform
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(30)
        process.stdout.close()
        remove_images(*references_of(name))  # a platform that ends may come back, so it keeps them
        shutil.rmtree(Path("/run/knoll") / name, ignore_errors=True)  # of a platform that was killed


def _up(platform: Platform) -> bool:
    if platform.process.poll() is not None:
        raise RuntimeError("the platform ended:\n" + "".join(platform.output[-50:]))
    return any("Knoll is up" in line for line in platform.output)


def http(platform: Platform) -> httpx.Client:
    """A client of the platform's gateway."""
    return httpx.Client(base_url=platform.gateway, timeout=60)
