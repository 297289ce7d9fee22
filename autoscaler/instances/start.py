"""Starting a new instance: reserve capacity, pull images, prepare volumes, then call the engine, with retries.

With Docker, `runtime.docker.create_containers` creates and starts the containers.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.instances.armed import ArmedEvent, ArmedInstance, ArmedState
from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.failures import CREATING, FAILED_CREATE, INITIALIZING, PULLING, UNSCHEDULABLE, start_failure
from autoscaler.instances.remove import remove
from autoscaler.runtime.model import Instance, InstanceSpec
from knoll.concurrency.backoff import Backoff
from knoll.messages.scale import StartFailure
from knoll.values.errors import KnollError

log = structlog.get_logger()
T = TypeVar("T")

START_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts to start an instance."""
CAPACITY_POLL_SECONDS = 0.2
SLOW_SECONDS = 3.0
"""A step of a start that takes longer is reported; a cold start takes a tenth of a second."""


class InstanceStart:
    """The start of one instance. Owned by a `ManagedInstance`.

    One parameter more than the style allows: two of them are the reports of a start.
    """

    def __init__(
        self,
        deps: InstanceDeps,
        spec: InstanceSpec,
        request: ResourceRequest,
        prepare: Callable[[], Awaitable[InstanceSpec]] | None,
        armed: ArmedInstance | None = None,
        *,
        on_failure: Callable[[StartFailure | None], None],
        on_scheduled: Callable[[str], None],
    ) -> None:
        """
        Args:
            prepare: provides what the instance takes from other objects and returns the final spec; None starts `spec`.
            armed: an armed instance of that name, released instead of a start if that is still possible.
            on_failure: called with what prevents the start, and with None when that is over.
            on_scheduled: called with the address of the instance, once it has one.
        """
        self.spec = spec
        self.released = False
        """Whether it was armed, and its programs were executed."""
        self._armed = armed
        self._deps, self._request, self._prepare = deps, request, prepare
        self._on_failure, self._on_scheduled = on_failure, on_scheduled
        self._retry_requested = asyncio.Event()

    def retry_now(self) -> None:
        """End the pause before the next attempt: the cause of the failure may be gone."""
        self._retry_requested.set()

    async def run(self) -> Instance:
        """Start the instance, however long that takes."""
        attempts, backoff = 0, Backoff(START_PAUSES)
        try:
            await self._reserve()
            if self._armed is not None and (released := await self._release(self._armed)):
                return released
        finally:
            if self._armed is not None:
                self._armed.apply(ArmedEvent.END)
        while True:
            self._retry_requested.clear()
            try:
                await self._pull_and_prepare()
                return await self._reported(
                    self._starting_step(),
                    self._deps.runtime.start(self.spec, scheduled=self._scheduled, admit=self._admit),
                )
            except KnollError as error:
                self._on_failure(start_failure(error, attempts))
                log.warning("instance not started", instance=self.spec.name, error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next_pause()):
                    await self._retry_requested.wait()
            attempts += 1

    async def _release(self, armed: ArmedInstance) -> Instance | None:
        """Release an armed instance; returns None when it is gone instead, and a start has to follow."""
        name = self.spec.name
        reason = "it is outdated"
        if armed.state is ArmedState.TAKEN:
            self._on_scheduled(armed.address)
            try:
                await self._admit(armed.address)
                instance = await self._deps.runtime.release(name)
            except KnollError as error:
                reason = str(error)
            else:
                self.released = True
                return instance
        log.info("armed instance not released, starting another", instance=name, reason=reason)
        await remove(self._deps.runtime, name, 0)
        return None

    def _scheduled(self, instance: Instance) -> None:
        self._on_scheduled(instance.address)

    async def _reserve(self) -> None:
        """Wait until the quotas of the namespace and the capacity of the machine allow the instance."""
        reported = None
        while failure := self._try_to_reserve():
            if reported != failure:
                log.warning("instance waiting for capacity", instance=self.spec.name, reason=failure.message)
                self._on_failure(failure)
                reported = failure
            if failure.reason == UNSCHEDULABLE:
                self._deps.on_capacity_short()
            await asyncio.sleep(CAPACITY_POLL_SECONDS)
        if reported:
            self._on_failure(None)

    def _try_to_reserve(self) -> StartFailure | None:
        reservations = self._deps.reservations
        if refusal := reservations.quota_refusal(self.spec.name, self._request):
            return StartFailure("ResourcesAvailable", FAILED_CREATE, refusal)
        if shortage := reservations.reserve(self.spec.name, self._request):
            return StartFailure("ResourcesAvailable", UNSCHEDULABLE, shortage)
        return None

    async def _pull_and_prepare(self) -> None:
        for container in (*self.spec.containers, *self.spec.init_containers):
            pulling = StartFailure("ResourcesAvailable", PULLING, f'pulling image "{container.image}"', final=False)
            await self._reported(pulling, self._deps.pull(self.spec.revision, container.image))
        if self._prepare:
            creating = StartFailure("ResourcesAvailable", CREATING, "preparing volumes", final=False)
            self.spec = await self._reported(creating, self._prepare())

    def _starting_step(self) -> StartFailure:
        if not self.spec.init_containers:
            return StartFailure("ResourcesAvailable", CREATING, "the engine is starting the containers", final=False)
        names = " ".join(container.name for container in self.spec.init_containers)
        message = f"containers with incomplete status: [{names}]: init containers have to end with exit code 0"
        return StartFailure("ResourcesAvailable", INITIALIZING, message, final=False)

    async def _admit(self, address: str) -> None:
        await self._deps.admit(self.spec.name, self.spec.revision.partition("/")[0], address)

    async def _reported(self, step: StartFailure, work: Awaitable[T]) -> T:
        """Wait for a step of the start, and report it while it takes long."""
        timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._on_failure, step)
        try:
            result = await work
        finally:
            timer.cancel()
        if timer.when() <= asyncio.get_running_loop().time():
            self._on_failure(None)
        return result
