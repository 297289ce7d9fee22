"""Thousands of Services at zero: time until each is Ready, and the cost of all of them while idle.

Real processes and a real Redis; only the runtime is a fake, because a thousand containers say nothing about Knoll. The
images are one that the engine has, which the real builder looks up for each service. Services are applied at a steady
rate; a watch tells when each is Ready. When all are at zero, the processor time and the memory of all processes are
read: resident memory as the kernel shares it out (PSS), because the processes share most of their code.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from statistics import median, quantiles

import httpx
import msgspec

from bench.coldstart_platform import AUTOSCALER, QUICK, SERVICES
from bench.lib.stopping import stoppable
from bench.tick import tick_ms
from knoll.cli.up import redis_command
from tests.conftest import free_port

IMAGE = "python:3.13-slim"
START_SECONDS, ZERO_SECONDS = 60.0, 300.0
PARTS = {"api": "api", "builder": "builder", "activator": "activator", "autoscaler": "bench.fake_autoscaler"}


class Processes:
    """A whole platform with a fake runtime."""

    def __init__(self, folder: Path) -> None:
        self.api = f"http://127.0.0.1:{free_port()}"
        ports = {f"KNOLL_{part}_ADMIN_PORT": str(free_port()) for part in ("ACTIVATOR", "AUTOSCALER", "BUILDER")}
        self._folder = folder
        self._environment = {
            **os.environ,
            **ports,
            "KNOLL_REDIS_URL": f"unix://{folder / 'redis.sock'}?db=0",
            "KNOLL_PLATFORM": f"bench-{os.getpid()}",
            "KNOLL_API_PORT": self.api.rpartition(":")[2],
            "KNOLL_API_TLS_PORT": str(free_port()),
            "KNOLL_STATE_DIR": str(folder / "state"),
            "KNOLL_ACTIVATOR_PORTS": str(free_port()),
            "KNOLL_UPLOADS_DIR": str(folder / "uploads"),
            "KNOLL_LOG_LEVEL": "warning",
        }
        self.pids: dict[str, int] = {}
        self._running: list[asyncio.subprocess.Process] = []

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        try:
            await self._start("redis", redis_command(self._folder))
            for name, module in PARTS.items():
                await self._start(name, [sys.executable, "-m", module])
            yield
        finally:
            for process in reversed(self._running):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                await process.wait()

    async def _start(self, name: str, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(*command, env=self._environment)
        self._running.append(process)
        self.pids[name] = process.pid

    def trees(self) -> dict[str, list[int]]:
        """Return the processes of each part, children included."""
        parents: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        return {name: list(_below(pid, parents)) for name, pid in self.pids.items()}


def _below(pid: int, children: dict[int, list[int]]) -> Iterable[int]:
    yield pid
    for child in children.get(pid, ()):
        yield from _below(child, children)


def memory_kib(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def cpu_seconds(pids: Iterable[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch:
    """Records when each Service became Ready at zero."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.ready: dict[str, float] = {}
        self.changed = asyncio.Event()

    async def run(self) -> None:
        async with self._client.stream("GET", SERVICES, params={"watch": "true"}, timeout=None) as answer:
            async for line in answer.aiter_lines():
                body = msgspec.json.decode(line)["object"]
                conditions = body.get("status", {}).get("conditions", [])
                name = body["metadata"]["name"]
                if name not in self.ready and any(
                    condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
                ):
                    self.ready[name] = time.monotonic()
                    self.changed.set()


def manifest(name: str) -> dict[str, object]:
    container = {"image": IMAGE, "ports": [{"containerPort": 8080}]}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


async def apply(client: httpx.AsyncClient, name: str) -> float:
    begun = time.monotonic()
    (await client.post(SERVICES, json=manifest(name))).raise_for_status()
    return begun


async def applied(client: httpx.AsyncClient, count: int, rate: float) -> dict[str, float]:
    """Apply at a constant rate, independent of the responses; returns the start of each request."""
    begun, first = {}, time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = {}
        for number in range(count):
            await asyncio.sleep(max(0.0, first + number / rate - time.monotonic()))
            name = f"s-{number:05d}"
            tasks[name] = group.create_task(apply(client, name))
    for name, task in tasks.items():
        begun[name] = task.result()
    return begun


async def until_zero(client: httpx.AsyncClient, count: int) -> None:
    deadline = time.monotonic() + ZERO_SECONDS
    while True:
        pods = (await client.get("/api/v1/namespaces/default/pods", params={"limit": "1"})).json()["items"]
        if not pods:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"not all of {count} services are at zero after {ZERO_SECONDS} s")
        await asyncio.sleep(1)


async def until_up(client: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if (await client.get("/readyz")).is_success:
                return
        await asyncio.sleep(0.1)
    raise SystemExit("the platform does not come up")


async def measure(count: int, rate: float, idle_seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="knoll-bench-") as directory:
        platform = Processes(Path(directory))
        limits = httpx.Limits(max_connections=64)
        async with platform.up(), httpx.AsyncClient(base_url=platform.api, timeout=60, limits=limits) as client:
            await until_up(client)
            headers = {"Content-Type": "application/merge-patch+json"}
            (await client.patch(AUTOSCALER, json={"data": QUICK}, headers=headers)).raise_for_status()
            await asyncio.sleep(5)
            empty = {name: memory_kib(pids) for name, pids in platform.trees().items()}
            watch = Watch(client)
            watching = asyncio.create_task(watch.run())
            begun = await applied(client, count, rate)
            while len(watch.ready) < count:
                watch.changed.clear()
                await asyncio.wait_for(watch.changed.wait(), 60)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            took = sorted(watch.ready[name] - begun[name] for name in begun)
            await until_zero(client, count)
            await asyncio.sleep(10)
            trees = platform.trees()
            before, at = {name: cpu_seconds(pids) for name, pids in trees.items()}, time.monotonic()
            await asyncio.sleep(idle_seconds)
            spent = time.monotonic() - at
            cpu = {name: (cpu_seconds(pids) - before[name]) / spent * 100 for name, pids in trees.items()}
            full = {name: memory_kib(pids) for name, pids in trees.items()}
    report(count, rate, took, cpu, empty, full)


def report(
    count: int, rate: float, took: list[float], cpu: dict[str, float], empty: dict[str, int], full: dict[str, int]
) -> None:
    print(f"{count} services at {rate:g} per second: Ready after median {median(took):.2f} s, most {took[-1]:.2f} s")
    print(f"{'':12}{'idle CPU':>10}{'empty':>10}{'full':>10}{'per service':>12}")
    for name in full:
        each = (full[name] - empty[name]) / count
        sizes = f"{empty[name] / 1024:>6.1f} MiB{full[name] / 1024:>6.1f} MiB"
        print(f"{name:12}{cpu[name]:>8.2f} %{sizes}{each:>8.1f} KiB")
    p95 = quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
    ours = [name for name in full if name != "redis"]
    print(f"RESULT scale.ready_p95_s {p95:.2f} s")
    print(f"RESULT scale.idle_cpu_percent {sum(cpu.values()):.2f} percent")
    print(f"RESULT scale.rss_mib {sum(full[name] for name in ours) / 1024:.0f} MiB")
    print(f"RESULT scale.redis_mib {full['redis'] / 1024:.0f} MiB")
    growth = sum(full.values()) - sum(empty.values())
    print(f"RESULT scale.rss_kib_per_service {growth / count:.1f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scale", description=__doc__)
    parser.add_argument("--services", type=int, default=1000, help="number of Services (%(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="Services applied per second (%(default)s)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of measuring while idle (%(default)s)")
    options = parser.parse_args()
    with stoppable():
        asyncio.run(measure(options.services, options.rate, options.idle))
    print(f"RESULT scale.tick1000_ms {tick_ms(1000):.1f} ms")
    if options.services != 1000:
        print(f"a tick of {options.services} active Revisions takes {tick_ms(options.services):.1f} ms")


if __name__ == "__main__":
    main()
