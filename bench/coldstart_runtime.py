"""The runtime without a platform, beside `docker run`: alternating rounds, and many concurrent starts."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from autoscaler.probes.checks import Checker
from autoscaler.probes.prober import until_ready
from autoscaler.probes.spec import Probes, ProbeSpec, TcpCheck
from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.docker.engine import Engine, EngineQuery
from autoscaler.runtime.model import ContainerSpec, Instance, InstanceSpec
from bench import coldstart_network
from bench.coldstart_parts import (
    AT_ONCE,
    IMAGE,
    NETWORK_OPTIONS,
    PORT,
    SOCKET,
    Samples,
    docker_run,
    first_byte,
    until,
)

PROBES = {"user-container": Probes(readiness=ProbeSpec(TcpCheck(PORT), period_seconds=0, eager=True))}


spent: ContextVar[list[float]] = ContextVar("spent")
"""Seconds of each call to the engine by the measured start, without those of the pool."""


class TimedEngine(Engine):
    """A client of the engine that adds the duration of each call to `spent`."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: EngineQuery | None = None,
        seconds: float | None = None,
    ) -> Any:
        began = time.perf_counter()
        try:
            return await super().call(method, path, body=body, query=query, seconds=seconds)
        finally:
            if (calls := spent.get(None)) is not None:
                calls.append(time.perf_counter() - began)


class Bench:
    """Starts of each kind, on one engine."""

    def __init__(self, runtime: DockerRuntime, engine: Engine, checker: Checker, platform: str, network: str) -> None:
        self.runtime, self.engine, self.checker = runtime, engine, checker
        self.platform, self.network = platform, network
        self.number = 0

    def next(self) -> tuple[str, str]:
        """Return a new name, and an address that the engine does not assign itself (it assigns the lowest first)."""
        self.number += 1
        return f"hello-{self.number}", f"10.213.{100 + self.number // 250}.{self.number % 250 + 2}"

    async def docker_run(self) -> float:
        name, address = self.next()
        return await docker_run(f"{self.platform}-{name}", self.network, address)

    async def engine_run(self) -> float:
        """Do the same through the API of the engine, without the cost of a command."""
        name, address = self.next()
        networking = {"EndpointsConfig": {self.network: {"IPAMConfig": {"IPv4Address": address}}}}
        body = {"Image": IMAGE, "HostConfig": {"NetworkMode": self.network}, "NetworkingConfig": networking}
        began = time.perf_counter()
        made = await self.engine.create(body, f"{self.platform}-{name}")
        await self.engine.post(f"/containers/{made}/start")
        await first_byte(address)
        took = time.perf_counter() - began
        await self.engine.remove(made)
        return took

    async def from_zero(self, keep: bool = False) -> tuple[float, Instance]:
        """Start an instance, probe it and send a request, as the platform does once it has decided."""
        name, _ = self.next()
        spec = InstanceSpec(name, "default/hello", "uid", (ContainerSpec("user-container", IMAGE),), PORT)
        began = time.perf_counter()
        instance = await self.runtime.start(spec)
        await until_ready(self.checker, self.runtime, name, instance.address, PROBES)
        await first_byte(instance.address)
        took = time.perf_counter() - began
        if not keep:
            await self.runtime.remove(name, 0)
        return took, instance

    async def from_paused(self, instance: Instance) -> float:
        await self.runtime.pause(instance.name)
        began = time.perf_counter()
        await self.runtime.resume(instance.name)
        await first_byte(instance.address)
        return time.perf_counter() - began

    async def calm(self, spare: int) -> None:
        """Wait until the pool is full again, as it is at most cold starts of users."""

        async def full() -> bool:
            return self.runtime.spare_sandboxes >= spare

        await until(full)
        await asyncio.sleep(0.3)


async def rounds(bench: Bench, count: int) -> Samples:
    """Rounds with one start of each kind, in rotating order; the first round warms caches and is dropped."""
    samples: Samples = {"docker_run": [], "engine_run": [], "zero": [], "paused": [], "zero_own": []}
    _, kept = await bench.from_zero(keep=True)

    async def zero() -> float:
        calls: list[float] = []
        token = spent.set(calls)
        took, instance = await bench.from_zero(keep=True)
        samples["zero_own"].append(took - sum(calls))
        spent.reset(token)
        await bench.runtime.remove(instance.name, 0)
        return took

    kinds: list[tuple[str, Callable[[], Awaitable[float]]]] = [
        ("docker_run", bench.docker_run),
        ("engine_run", bench.engine_run),
        ("zero", zero),
        ("paused", lambda: bench.from_paused(kept)),
    ]
    for number in range(count + 1):
        for kind, measure in kinds[number % 4 :] + kinds[: number % 4]:
            await bench.calm(2)
            samples[kind].append(await measure())
    await bench.runtime.remove(kept.name, 0)
    return {kind: values[1:] for kind, values in samples.items()}


async def wake(bench: Bench, count: int, warm: int) -> Samples:
    """Many concurrent starts, by `docker run` and the runtime in turns; each request is a sample.

    The pool learns from the first round, which is reported separately.
    """
    samples: Samples = {"docker_run_25": [], "zero_25": [], "zero_25_unlearned": []}
    for number in range(count + 1):
        samples["docker_run_25"] += await asyncio.gather(*(bench.docker_run() for _ in range(AT_ONCE)))
        await bench.calm(min(warm, AT_ONCE) if number else 2)
        woken = await asyncio.gather(*(bench.from_zero(keep=True) for _ in range(AT_ONCE)))
        samples["zero_25" if number else "zero_25_unlearned"] += [took for took, _ in woken]
        await asyncio.gather(*(bench.runtime.remove(instance.name, 0) for _, instance in woken))
        await bench.calm(2)
    return samples


async def measure(count: int, wakes: int, warm: int) -> Samples:
    """Measure on a separate platform that is removed afterwards."""
    platform = f"bench-{uuid.uuid4().hex[:6]}"
    network = f"knoll-{platform}"
    with coldstart_network.network(network, *NETWORK_OPTIONS):
        runtime = DockerRuntime(
            SOCKET, platform=platform, network=network, warm_sandboxes=warm, engine=TimedEngine(SOCKET)
        )
        engine = Engine(SOCKET)
        await engine.open()
        async with runtime, Checker() as checker:
            await runtime.ensure_image(IMAGE)
            bench = Bench(runtime, engine, checker, platform, network)
            samples = await rounds(bench, count)
            samples |= await wake(bench, wakes, warm) if wakes else {}
            await runtime.destroy()
        await engine.close()
        return samples
