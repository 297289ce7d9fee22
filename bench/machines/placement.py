"""The rate at which Docker Swarm places reservations, beside plain containers, and what its managers use afterwards."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.placement.swarm import placer, reservation_image
from autoscaler.placement.swarm.client import EngineSwarm
from autoscaler.placement.swarm.placer import SwarmPlacer
from autoscaler.placement.swarm.places import PlaceOptions
from autoscaler.placement.swarm.services import platform_label
from autoscaler.runtime.docker.engine import Engine
from bench.machines.figures import Figure
from tests.machines import SITE, Machines
from tests.waiting import eventually

PLATFORM = "bench-machines"
REQUEST = ResourceRequest(0.01, 4 * 1024**2)
AT_ONCE = PlaceOptions().per_node
"""Containers that are being created at a time, on each machine."""
IDLE_SECONDS = 20.0
DEADLINE_SECONDS = 600.0


async def placed(engines: list[Engine], nodes: dict[str, str], image: str, count: int, idle: list[float]) -> float:
    """Return the rate at which a leader places reservations, until all of them run, per second.

    Args: idle: the CPU time of each idle manager afterwards is appended, in percent of a core.
    """
    swarm = EngineSwarm(engines[0])

    async def has_image() -> str:
        return image

    leader = SwarmPlacer(swarm, PLATFORM, has_image, lambda: nodes, PlaceOptions(ahead=0))
    bound: dict[str, str] = {}
    leader.begin(bound.__setitem__, lambda *_: None)
    working = asyncio.create_task(leader.run())

    async def all_run() -> bool:
        if len(bound) < count:
            return False
        tasks = await swarm.tasks(platform_label(PLATFORM))
        return sum(task.state == "running" for task in tasks) == count

    began = time.perf_counter()
    for number in range(count):
        leader.place(f"instance-{number}", REQUEST)
    await eventually(all_run, DEADLINE_SECONDS, "all places")
    seconds = time.perf_counter() - began
    await asyncio.sleep(2)
    idle += await idle_cpu()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await placer.remove_all(swarm, PLATFORM)
    await eventually(lambda: no_containers(engines), DEADLINE_SECONDS, "the end of all places")
    return count / seconds


async def plain(engines: list[Engine], image: str, count: int) -> float:
    """Return the rate at which plain containers are started on the engines in turn, per second."""
    bodies = {
        "Image": image, "Labels": {"knoll.dev/platform": PLATFORM},
        "HostConfig": {"NetworkMode": "host", "LogConfig": {"Type": "none"}},
    }  # fmt: skip
    limits = [asyncio.Semaphore(AT_ONCE) for _ in engines]

    async def start(number: int) -> str:
        engine = engines[number % len(engines)]
        async with limits[number % len(engines)]:
            container = await engine.create(bodies)
            await engine.post(f"/containers/{container}/start")
        return container

    began = time.perf_counter()
    containers = await asyncio.gather(*(start(number) for number in range(count)))
    seconds = time.perf_counter() - began

    async def remove(number: int) -> None:
        async with limits[number % len(engines)]:
            await engines[number % len(engines)].remove(containers[number])

    await asyncio.gather(*(remove(number) for number in range(count)))
    return count / seconds


async def no_containers(engines: list[Engine]) -> bool:
    filters: dict[str, str | int] = {"filters": f'{{"label":["{platform_label(PLATFORM)}"]}}', "all": 1}
    return not any([await engine.get("/containers/json", filters) for engine in engines])


def engine_seconds() -> list[float]:
    """Return the CPU time of each machine's dockerd, in seconds."""
    ticks = os.sysconf("SC_CLK_TCK")
    seconds = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        if file.read_text().strip() == "dockerd" and str(SITE.folder) in (file.parent / "cmdline").read_text():
            fields = (file.parent / "stat").read_text().rpartition(")")[2].split()
            seconds.append((int(fields[11]) + int(fields[12])) / ticks)
    return sorted(seconds)


async def idle_cpu() -> list[float]:
    """Return the CPU time of each manager, in percent of a core."""
    before = engine_seconds()
    await asyncio.sleep(IDLE_SECONDS)
    return [(after - each) / IDLE_SECONDS * 100 for each, after in zip(before, engine_seconds(), strict=True)]


async def placement(lab: Machines, rounds: int, count: int) -> list[Figure]:
    """Measure reservations beside plain containers, and the CPU time of managers once all are placed."""
    engines = [Engine(machine.socket) for machine in lab]
    images = set()
    for engine in engines:
        await engine.open()
        images.add(await reservation_image.ensure(engine))
    (image,) = images
    nodes = lab.ready_nodes(lab[1])
    ratios, idle = [], []
    for number in range(rounds):
        share: list[float] = []
        kinds: list[Callable[[], Awaitable[float]]] = [
            lambda share=share: placed(engines, nodes, image, count, share),  # type: ignore[misc]
            lambda: plain(engines, image, count),
        ]
        rates = {}
        for kind in (0, 1) if number % 2 else (1, 0):
            rates[kind] = await kinds[kind]()
        print(f"round {number + 1}: {rates[0]:.1f} places/s, {rates[1]:.1f} plain containers/s", flush=True)
        ratios.append(rates[0] / rates[1])
        idle += share
    for engine in engines:
        await engine.close()
    return [
        Figure("machines.placement_rate_vs_plain", statistics.median(ratios), "ratio"),
        Figure("machines.manager_idle_percent", max(idle), "%"),
    ]
