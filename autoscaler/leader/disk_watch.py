"""Measures what instances write to the disk, and evicts those that take too much of it.

The engine measures a container by walking through what it has written, so it is asked seldom: each running instance
about every `LOOK_SECONDS`, as kubelet does, and never for more than a small part of the time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from prometheus_client import Gauge

from autoscaler.decision import disk_eviction
from autoscaler.decision.disk_eviction import Usage
from autoscaler.instances.instance import Member
from autoscaler.runtime.protocol import InstanceSpec, Runtime
from knoll.config.security import SecurityConfig
from knoll.values.errors import KnollError, NotFoundError

log = structlog.get_logger()

FREE = Gauge("knoll_disk_free_bytes", "What is free on the disk of the engine's files.")
PRESSURE = Gauge("knoll_disk_pressure", "1 while less is free there than knoll.dev/disk-pressure-free says.")

LOOK_SECONDS = 10.0
IDLE_PART = 20
"""For each second that the engine measures, so many pass without."""
_WRITES = ("starting", "ready", "unready", "draining", "resting")
"""Stages in which processes run."""


class DiskWatch:
    """Looks at all running instances in turn."""

    def __init__(
        self,
        runtime: Runtime,
        members: Callable[[], Iterable[Member]],
        config: Callable[[], SecurityConfig],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._runtime, self._members, self._config = runtime, members, config
        self._look_seconds = look_seconds
        self._under_pressure = False

    async def run(self) -> None:
        """For ever; an engine that is away is waited for."""
        while True:
            try:
                await self._round()
            except KnollError as error:
                log.warning("disk use not measured", error=str(error))
                await asyncio.sleep(self._look_seconds)

    async def _round(self) -> None:
        running = {one.name: one for one in self._members() if one.instance is not None and one.stage in _WRITES}
        pause = self._look_seconds / max(1, len(running))
        volumes: Mapping[str, int] = {}
        if disk_eviction.measures_volumes(one.spec for one in running.values()):
            volumes, took = await _timed(self._runtime.scratch_bytes())
            await asyncio.sleep(took * IDLE_PART)
        used = {}
        for name, member in running.items():
            try:
                containers, took = await _timed(self._runtime.disk_bytes(name))
            except NotFoundError:
                continue  # it has ended meanwhile
            usage = Usage(containers, {key: size for key, size in volumes.items() if _owner(key) == name})
            used[name] = (member.spec, usage)
            if why := disk_eviction.overrun(member.spec, usage, self._config().ephemeral_storage_limit):
                member.evict(why)
                del used[name]
            await asyncio.sleep(max(pause, took * IDLE_PART))
        if not running:
            await asyncio.sleep(self._look_seconds)
        await self._relieve({name: one for name, one in running.items() if name in used}, used)

    async def _relieve(self, running: Mapping[str, Member], used: Mapping[str, tuple[InstanceSpec, Usage]]) -> None:
        """Make room on a disk that is nearly full, before Redis and the engine run out of it."""
        least = self._config().disk_pressure_free
        free = await self._runtime.free_disk_bytes()
        pressure = bool(least) and free < least
        FREE.set(free)
        PRESSURE.set(pressure)
        if pressure != self._under_pressure:
            self._under_pressure = pressure
            if pressure:
                log.warning("disk pressure", free_bytes=free, least_bytes=least)
            else:
                log.info("disk pressure over", free_bytes=free)
        if pressure and (name := disk_eviction.to_evict(used)) is not None:
            spec, usage = used[name]
            running[name].evict(disk_eviction.pressure_message(spec, usage, least, free))


def _owner(volume: str) -> str:
    """Instance of a scratch volume `scratch.INSTANCE.NAME`; neither part has a dot that would mislead."""
    return volume.removeprefix(disk_eviction.SCRATCH).rpartition(".")[0]


async def _timed(work: Awaitable[Mapping[str, int]]) -> tuple[Mapping[str, int], float]:
    """What was measured, and the seconds that it took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    return await work, clock() - began
