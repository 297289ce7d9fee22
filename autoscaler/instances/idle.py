"""An instance out of service that may serve again: pausing or stopping it, and waking it."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.decision.idle_policy import IdleState
from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.lifecycle import Lifecycle
from autoscaler.instances.restart import InstanceContainers
from autoscaler.instances.transitions import ENDING, Command, LifecycleState
from knoll.messages.endpoints import StartTiming
from knoll.values.errors import KnollError

log = structlog.get_logger()

_STATES: dict[IdleState, LifecycleState] = {"paused": LifecycleState.PAUSED, "stopped": LifecycleState.STOPPED}


@dataclass(slots=True)
class StartTimes:
    """When an instance went through its start, epoch seconds; 0 before."""

    requested: float
    scheduled: float = 0.0
    started: float = 0.0
    timing: StartTiming | None = None
    """Complete once the instance is ready."""

    def ready(self, now: float) -> None:
        """Complete the timing, the first time that the instance is ready."""
        if self.timing is None:
            scheduled = self.scheduled or self.requested
            self.timing = StartTiming(self.requested, scheduled, self.started or scheduled, now)


class IdleCycle:
    """The idle states of one instance. Owned by a `ManagedInstance`."""

    def __init__(
        self,
        deps: InstanceDeps,
        name: str,
        request: ResourceRequest,
        lifecycle: Lifecycle,
        containers: InstanceContainers,
        times: StartTimes,
    ) -> None:
        self._deps, self._name, self._request = deps, name, request
        self._lifecycle, self._containers, self._times = lifecycle, containers, times
        self.target: IdleState = "paused"
        """The idle state that the instance is in, or goes to."""
        self.since = 0.0
        """When it entered its idle state, epoch seconds; 0 while it is in none."""
        self.kept_bytes = 0
        """Memory that it keeps while it is paused."""

    @property
    def reserved(self) -> ResourceRequest:
        """What the instance reserves in its current state: a paused one needs no CPU, a stopped one nothing."""
        match self._lifecycle.state:
            case LifecycleState.PAUSED | LifecycleState.STOPPING:
                return ResourceRequest(0.0, self._request.memory_bytes)
            case LifecycleState.STOPPED:
                return ResourceRequest(0.0, 0)
            case _:
                return self._request

    async def enter(self, grace_seconds: float) -> bool:
        """Pause or stop the instance, which has no requests in it. Returns False when the engine refuses."""
        if self.target == "stopped":
            return await self._stop(grace_seconds)
        return await self._attempt(self._deps.runtime.pause(self._name))

    async def wait(self) -> bool:
        """Stay in the idle state, or step down from it. Returns True when the instance is to serve again.

        False when it is to end: on command, because a container died, or because the engine refused a step.
        """
        while True:
            await self._settle()
            await first(
                self._lifecycle.reached(ENDING | {LifecycleState.STARTING, LifecycleState.STOPPING}),
                self._containers.death(),
            )
            if self._lifecycle.state in ENDING or self._containers.down:
                return False
            if self._lifecycle.state is LifecycleState.STARTING:
                return await self._wake()
            if not await self._stop(None):
                return False
            self.target = "stopped"

    async def _stop(self, grace_seconds: float | None) -> bool:
        async def stop() -> None:
            await self._deps.runtime.unforward(self._name)
            await self._deps.runtime.stop(self._name, grace_seconds)

        return await self._attempt(stop())

    async def _attempt(self, call: Coroutine[Any, Any, None]) -> bool:
        try:
            await call
        except KnollError as error:
            log.warning("instance removed instead of kept idle", instance=self._name, error=str(error))
            return False
        return True

    async def _settle(self) -> None:
        """Record that the idle state is reached."""
        self.kept_bytes = 0
        if self.target == "paused":
            with contextlib.suppress(KnollError):
                self.kept_bytes = await self._deps.runtime.memory_bytes(self._name)
        state = self._lifecycle.state
        if state is LifecycleState.GOING_IDLE or (state is LifecycleState.STOPPING and self.target == "stopped"):
            self.since = self._deps.clock()
            self._lifecycle.apply(Command.PAUSE if self.target == "paused" else Command.STOP)
            log.info("instance idle", instance=self._name, state=self.target, kept_bytes=self.kept_bytes)
        self._deps.reservations.update(self._name, self.reserved)
        self._lifecycle.notify()

    async def _wake(self) -> bool:
        runtime, clock = self._deps.runtime, self._deps.clock
        self.since, self.kept_bytes = 0.0, 0
        self._times.scheduled = clock()
        try:
            if self.target == "stopped":
                self._containers.started(await runtime.start_stopped(self._name))
            else:
                await runtime.resume(self._name)
        except KnollError as error:
            log.warning("instance not resumed", instance=self._name, error=str(error))
            return False
        self._times.started = clock()
        self._deps.reservations.put(self._name, self._request)
        log.info("instance resumed", instance=self._name, state=self.target)
        return True


async def first(*coroutines: Coroutine[Any, Any, object]) -> bool:
    """Wait until the first of several coroutines ends, and cancel the others. Raises its error.

    Returns:
        Whether no coroutine that ended returned False.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        results = [task.result() for task in done]
        return False not in results
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
