"""Measures the disk use of instances, and evicts those that use too much.

The engine measures a container by walking through the files that it has written, so it is asked rarely: for each
running instance about every `INTERVAL_SECONDS`, as kubelet does, and never for more than a small part of the time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from prometheus_client import Gauge

from autoscaler.decision import disk_eviction
from autoscaler.decision.disk_eviction import DiskUsage
from autoscaler.instances.instance import ManagedInstance
from autoscaler.instances.transitions import IDLE, LifecycleState
from autoscaler.runtime.model import InstanceSpec
from autoscaler.runtime.protocol import Runtime
from knoll.config.security import SecurityConfig
from knoll.values.errors import KnollError, NotFoundError

log = structlog.get_logger()

FREE = Gauge("knoll_disk_free_bytes", "Free space on the engine's disk.")
PRESSURE = Gauge("knoll_disk_pressure", "1 while the free space is below disk-pressure-free in config-security.")

INTERVAL_SECONDS = 10.0
IDLE_FACTOR = 20
"""Seconds without a measurement for each second of measuring."""


class DiskWatch:
    """Measures all running instances in turn."""

    def __init__(
        self,
        runtime: Runtime,
        instances: Callable[[], Iterable[ManagedInstance]],
        config: Callable[[], SecurityConfig],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._runtime, self._instances, self._config = runtime, instances, config
        self._interval_seconds = interval_seconds
        self._under_pressure = False

    async def run(self) -> None:
        """Measure forever; waits while the engine is unavailable."""
        while True:
            try:
                await self._round()
            except KnollError as error:
                log.warning("disk use not measured", error=str(error))
                await asyncio.sleep(self._interval_seconds)

    async def _round(self) -> None:
        running = {instance.name: instance for instance in self._instances() if instance.exists and _runs(instance)}
        pause = self._interval_seconds / max(1, len(running))
        volumes: Mapping[str, int] = {}
        if disk_eviction.measures_volumes(instance.spec for instance in running.values()):
            volumes, took = await _timed(self._runtime.scratch_bytes())
            await asyncio.sleep(took * IDLE_FACTOR)
        used = {}
        for name, instance in running.items():
            try:
                containers, took = await _timed(self._runtime.disk_bytes(name))
            except NotFoundError:
                continue  # removed meanwhile
            usage = DiskUsage(containers, {key: size for key, size in volumes.items() if _owner(key) == name})
            used[name] = (instance.spec, usage)
            limit = self._config().ephemeral_storage_limit
            if message := disk_eviction.overrun(instance.spec, usage, limit):
                instance.evict(message)
                del used[name]
            await asyncio.sleep(max(pause, took * IDLE_FACTOR))
        if not running:
            await asyncio.sleep(self._interval_seconds)
        await self._relieve({name: running[name] for name in used}, used)

    async def _relieve(
        self, running: Mapping[str, ManagedInstance], used: Mapping[str, tuple[InstanceSpec, DiskUsage]]
    ) -> None:
        """Evict an instance when the disk is nearly full, before Redis and the engine run out of space."""
        least = self._config().disk_pressure_free
        free = await self._runtime.free_disk_bytes()
        pressure = bool(least) and free < least
        FREE.set(free)
        PRESSURE.set(pressure)
        if pressure != self._under_pressure:
            self._under_pressure = pressure
            if pressure:
                log.warning("disk pressure detected", free_bytes=free, least_bytes=least)
            else:
                log.info("disk pressure ended", free_bytes=free)
        if pressure and (name := disk_eviction.to_evict(used)) is not None:
            spec, usage = used[name]
            running[name].evict(disk_eviction.pressure_message(spec, usage, least, free))


def _runs(instance: ManagedInstance) -> bool:
    """Return whether its processes run."""
    return instance.state not in IDLE and instance.state is not LifecycleState.REMOVED


def _owner(volume: str) -> str:
    """Return the instance of a scratch volume `scratch.INSTANCE.NAME`; NAME has no dot."""
    return volume.removeprefix(disk_eviction.SCRATCH).rpartition(".")[0]


async def _timed(work: Awaitable[Mapping[str, int]]) -> tuple[Mapping[str, int], float]:
    """Return the measurement, and the seconds that it took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    return await work, clock() - began
