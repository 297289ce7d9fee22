"""A whole platform with a fake runtime, from this or another checkout, and a client that applies many Services to it.

Real processes and a real Redis; only the runtime is a fake, because a thousand containers say nothing about Knoll. The
images are one that the engine has, which the real builder looks up for each Service.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import msgspec
from redis.asyncio import Redis

from bench.coldstart_platform import AUTOSCALER, QUICK, SERVICES
from knoll.cli.up import redis_command
from knoll.resources.validation.reserved_images import PINNED_PREFIX
from tests.conftest import free_port

IMAGE = "python:3.13-slim"
START_SECONDS, ZERO_SECONDS = 60.0, 300.0
PARTS = {"api": "api", "builder": "builder", "activator": "activator", "autoscaler": "bench.fake_autoscaler"}
BASELINE = "702674c"
"""The commit that the control plane is compared with."""
OWN = Path(__file__).resolve().parents[2]
VERSION_KEY = "knoll:revision"
"""Redis' counter of object versions, which each write increments; the same in all commits that are compared."""
_MERGE = {"Content-Type": "application/merge-patch+json"}
_RECONCILES = re.compile(r'^knoll_controller_reconciles_total\{kind="(.*)"\} (\S+)$', re.MULTILINE)


def checkout(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder, and return it."""
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(OWN), "archive", commit], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


class Processes:
    """A whole platform with a fake runtime."""

    def __init__(self, folder: Path, source: Path = OWN) -> None:
        """
        Args:
            folder: for the platform's files; exists and is empty.
            source: the checkout whose code runs.
        """
        self.api = f"http://127.0.0.1:{free_port()}"
        ports = {f"KNOLL_{part}_ADMIN_PORT": str(free_port()) for part in ("ACTIVATOR", "AUTOSCALER", "BUILDER")}
        self.gateway = free_port()
        self._folder, self._source = folder, source
        self._environment = {
            **os.environ,
            **ports,
            "PYTHONPATH": f"{source}{os.pathsep}{source / 'platform'}",
            "KNOLL_REDIS_URL": self._redis_url,
            "KNOLL_PLATFORM": f"bench-{os.getpid()}",
            "KNOLL_API_PORT": self.api.rpartition(":")[2],
            "KNOLL_API_TLS_PORT": str(free_port()),
            "KNOLL_STATE_DIR": str(folder / "state"),
            "KNOLL_ACTIVATOR_PORTS": str(self.gateway),
            "KNOLL_UPLOADS_DIR": str(folder / "uploads"),
            "KNOLL_LOG_LEVEL": "warning",
        }
        self.pids: dict[str, int] = {}
        self._running: list[asyncio.subprocess.Process] = []

    @property
    def _redis_url(self) -> str:
        return f"unix://{self._folder / 'redis.sock'}?db=0"

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
            self._remove_pins()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the platform's API, once the platform is up and scales to zero as soon as it may."""
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=self.api, timeout=60, limits=limits) as client:
            await until_up(client)
            (await client.patch(AUTOSCALER, json={"data": QUICK}, headers=_MERGE)).raise_for_status()
            await asyncio.sleep(5)
            yield client

    async def _start(self, name: str, command: list[str]) -> None:
        with self._log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, env=self._environment, cwd=self._source, stdout=log, stderr=log
            )
        self._running.append(process)
        self.pids[name] = process.pid

    def _remove_pins(self) -> None:
        """Remove the image names with which the builder has pinned images."""
        pins = f"{PINNED_PREFIX}/{self._environment['KNOLL_PLATFORM']}"
        listed = subprocess.run(
            ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", pins], capture_output=True, text=True
        )
        if names := listed.stdout.split():
            subprocess.run(["docker", "rmi", *names], capture_output=True)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def count_in_logs(self, text: str) -> int:
        """Return how often a text is in the logs of all processes."""
        return sum(self._log(name).read_text().count(text) for name in self.pids)

    def trees(self) -> dict[str, list[int]]:
        """Return the processes of each part, children included."""
        parents: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        return {name: list(_below(pid, parents)) for name, pid in self.pids.items()}

    def cpu(self) -> dict[str, float]:
        """Return the user and system time of each part, in seconds."""
        return {name: cpu_seconds(pids) for name, pids in self.trees().items()}

    async def writes(self) -> int:
        """Return the number of object writes since an unknown start: only differences mean something."""
        async with Redis.from_url(self._redis_url) as redis:
            version: Any = await redis.get(VERSION_KEY)
            return int(version)

    async def writes_by_kind(self) -> Counter[str]:
        """Return how often objects of each kind were created, modified and deleted, among the last 20 000 events."""
        async with Redis.from_url(self._redis_url) as redis:
            events: Any = await redis.xrange("knoll:events")
        return Counter(f"{fields[b'r'].decode()} {fields[b't'].decode()}" for _, fields in events)


async def reconciles(client: httpx.AsyncClient) -> Counter[str]:
    """Return how often the controllers reconciled an object of each kind; empty for a commit that does not count."""
    text = (await client.get("/metrics")).text
    return Counter({f"{kind} reconciled": round(float(count)) for kind, count in _RECONCILES.findall(text)})


def _below(pid: int, children: dict[int, list[int]]) -> Iterable[int]:
    yield pid
    for child in children.get(pid, ()):
        yield from _below(child, children)


def memory_kib(pids: Iterable[int]) -> int:
    """Return the resident memory of processes as the kernel shares it out (PSS)."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the user and system time of processes."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch:
    """Records when each Service became Ready at zero."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.ready: dict[str, float] = {}
        self.changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Watch"]:
        """Watch inside of the block."""
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def count(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many Services are Ready. Raises: TimeoutError: none became Ready for so many seconds."""
        while len(self.ready) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), seconds)

    async def _run(self) -> None:
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


async def apply(client: httpx.AsyncClient, name: str, retry: bool = False) -> float:
    """Create a Service; returns when the first request began.

    Args: retry: obey 429 and 503 with Retry-After as client-go does, instead of failing.
    """
    begun = time.monotonic()
    while True:
        answer = await client.post(SERVICES, json=manifest(name))
        if not retry or answer.status_code not in (429, 503):
            answer.raise_for_status()
            return begun
        await asyncio.sleep(float(answer.headers["Retry-After"]))


async def applied(
    client: httpx.AsyncClient, count: int, rate: float, first: int = 0, *, retry: bool = False
) -> dict[str, float]:
    """Apply at a constant rate, independent of the responses; returns the start of each request.

    Args: first: number of the first Service.
    """
    begun, start = {}, time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = {}
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            name = f"s-{first + number:05d}"
            tasks[name] = group.create_task(apply(client, name, retry))
    for name, task in tasks.items():
        begun[name] = task.result()
    return begun


async def until_zero(client: httpx.AsyncClient) -> None:
    """Wait until no Pod is left."""
    deadline = time.monotonic() + ZERO_SECONDS
    while True:
        pods = (await client.get("/api/v1/namespaces/default/pods", params={"limit": "1"})).json()["items"]
        if not pods:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"not all services are at zero after {ZERO_SECONDS} s")
        await asyncio.sleep(1)


async def until_up(client: httpx.AsyncClient) -> None:
    """Wait until the API is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if (await client.get("/readyz")).is_success:
                return
        await asyncio.sleep(0.1)
    raise SystemExit("the platform does not come up")
