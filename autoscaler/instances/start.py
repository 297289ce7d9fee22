"""Getting an instance to run: room, images, files, then the engine, as often as it takes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from autoscaler.decision.capacity import Need
from autoscaler.instances.deps import World
from autoscaler.instances.failures import CREATING, FAILED_CREATE, INITIALIZING, PULLING, UNSCHEDULABLE, failure_of
from autoscaler.runtime.protocol import Instance, InstanceSpec
from knoll.messages.scale import StartFailure
from knoll.values.errors import KnollError

log = structlog.get_logger()
T = TypeVar("T")

RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses between tries to start an instance that the engine refused."""
ROOM_SECONDS = 0.2
"""Between two looks whether an instance fits now."""
SLOW_SECONDS = 3.0
"""A step of a start that takes longer is reported: a cold start takes a tenth of a second."""


class Launch:
    """The start of one instance. Owned by its member."""

    def __init__(
        self,
        world: World,
        spec: InstanceSpec,
        need: Need,
        prepare: Callable[[], Awaitable[InstanceSpec]] | None,
        *,
        failed: Callable[[StartFailure | None], None],
        scheduled: Callable[[Instance], None],
    ) -> None:
        """
        Args:
            prepare: gives the spec to start, once what it takes from elsewhere is there; None starts `spec`.
            failed: told what stands in the way, and None when that is over.
            scheduled: see `Runtime.start`.
        """
        self.spec = spec
        self._world, self._need, self._prepare = world, need, prepare
        self._failed, self._scheduled = failed, scheduled
        self._try_now = asyncio.Event()

    def try_again(self) -> None:
        """What a start failed for may have changed: a pause before the next try is over."""
        self._try_now.set()

    async def run(self) -> Instance:
        """Start it, however long that takes."""
        tries = 0
        await self._find_room()
        while True:
            self._try_now.clear()
            try:
                return await self._start()
            except KnollError as error:
                self._failed(failure_of(error, tries))
                log.warning("instance not started", instance=self.spec.name, error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]):
                    await self._try_now.wait()
            tries += 1

    async def _find_room(self) -> None:
        """Wait until its namespace's quotas allow it, and the machine has what it requests."""
        told = None
        while failure := self._in_the_way():
            if told != failure:
                log.warning("instance waits for room", instance=self.spec.name, why=failure.message)
                self._failed(failure)
                told = failure
            if failure.reason == UNSCHEDULABLE:
                self._world.crowded()
            await asyncio.sleep(ROOM_SECONDS)
        if told:
            self._failed(None)

    def _in_the_way(self) -> StartFailure | None:
        room = self._world.room
        if over := room.over_quota(self.spec.name, self._need):
            return StartFailure("ResourcesAvailable", FAILED_CREATE, over)
        if missing := room.take(self.spec.name, self._need):
            return StartFailure("ResourcesAvailable", UNSCHEDULABLE, missing)
        return None

    async def _start(self) -> Instance:
        for container in (*self.spec.containers, *self.spec.init_containers):
            pulling = StartFailure("ResourcesAvailable", PULLING, f'pulling image "{container.image}"', final=False)
            await self._reported(pulling, self._world.pull(self.spec.revision, container.image))
        if self._prepare:
            creating = StartFailure("ResourcesAvailable", CREATING, "its volumes are being made", final=False)
            self.spec = await self._reported(creating, self._prepare())
        starting = StartFailure("ResourcesAvailable", CREATING, "the engine is starting its containers", final=False)
        if self.spec.init_containers:
            names = " ".join(one.name for one in self.spec.init_containers)
            message = f"containers with incomplete status: [{names}]: init containers have to end with exit code 0"
            starting = StartFailure("ResourcesAvailable", INITIALIZING, message, final=False)
        start = self._world.runtime.start(self.spec, scheduled=self._scheduled, admit=self._admit)
        return await self._reported(starting, start)

    async def _admit(self, address: str) -> None:
        await self._world.admit(self.spec.name, self.spec.revision.partition("/")[0], address)

    async def _reported(self, step: StartFailure, work: Awaitable[T]) -> T:
        """Wait for a step of the start, and say what is waited for when that takes long."""
        timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._failed, step)
        try:
            result = await work
        finally:
            timer.cancel()
        if timer.when() <= asyncio.get_running_loop().time():
            self._failed(None)
        return result
