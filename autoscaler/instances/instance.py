"""One instance from its start to its removal: starts it, keeps it in service, makes it idle, drains and removes it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import structlog

from autoscaler.decision.capacity import request_of
from autoscaler.decision.idle_policy import IdleState
from autoscaler.instances.armed import ArmedInstance
from autoscaler.instances.container_status import container_row
from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.events import InstanceEvents
from autoscaler.instances.failures import NOT_OF_A_CONTAINER, unhealthy
from autoscaler.instances.idle import IdleCycle, StartTimes, first
from autoscaler.instances.lifecycle import Lifecycle
from autoscaler.instances.remove import remaining_grace, remove
from autoscaler.instances.restart import InstanceContainers
from autoscaler.instances.start import InstanceStart
from autoscaler.instances.transitions import ENDING, IDLE, Command, LifecycleState, Observation, stage_of
from autoscaler.instances.upkeep import Upkeep
from autoscaler.probes.spec import Probes
from autoscaler.runtime.model import ContainerDied, Instance, InstanceSpec
from knoll.messages.endpoints import Endpoint, StartTiming
from knoll.messages.instances import InstanceRow
from knoll.messages.scale import StartFailure

log = structlog.get_logger()

CONFIRM_SECONDS = 10.0
"""How long an instance that was taken over in service stays there without a probe that confirms it."""
RECOVERED_SECONDS = 30.0
"""How long a crash-looping container must serve before its failure is no longer reported."""
EVICTED_SHOWN_SECONDS = 1.0
"""An evicted instance is still shown for this time, so that its Event reaches the API before its Pod is deleted."""
BUG_PAUSE_SECONDS = 5.0
"""Pause before an instance that failed because of a bug of ours is replaced."""


class ManagedInstance:
    """One instance. Its task carries out everything that happens to it.

    It has more attributes than the style allows: it is where the parts of an instance meet (start, upkeep, idle cycle,
    removal), and each of these parts has a class of its own.
    """

    def __init__(
        self,
        deps: InstanceDeps,
        spec: InstanceSpec,
        probes: Mapping[str, Probes],
        *,
        requested_at: float,
        prepare: Callable[[], Awaitable[InstanceSpec]] | None = None,
        adopted: Instance | None = None,
        idle: tuple[IdleState, float] | None = None,
        armed: ArmedInstance | None = None,
    ) -> None:
        """
        Args:
            requested_at: epoch seconds of the decision to start it.
            prepare: provides what the instance takes from other objects and returns the final spec; None starts `spec`.
            adopted: the instance, when it exists already.
            idle: its idle state and since when (epoch seconds); None when it is not idle.
            armed: an armed instance that is released instead of starting a new one.

        Two parameters more than the style allows: the last three describe what already exists of the instance.
        """
        self.name, self.revision, self.uid = spec.name, spec.revision, spec.uid
        self.request = request_of(spec)
        self.address = adopted.address if adopted else ""
        self.created = adopted.created if adopted else requested_at
        self.failure: StartFailure | None = None
        self.generation = 0
        """Generation of the newest assignment that was carried out."""
        self.exists = adopted is not None
        """The engine has started it."""
        self._deps, self._probes, self._adopted = deps, probes, adopted
        initial = (
            LifecycleState.STARTING
            if idle is None
            else LifecycleState.PAUSED
            if idle[0] == "paused"
            else LifecycleState.STOPPED
        )
        self._lifecycle = Lifecycle(initial, self.notify)
        self._start = InstanceStart(
            deps, spec, self.request, prepare, armed, on_failure=self._start_failed, on_scheduled=self._scheduled
        )
        self._events = InstanceEvents(deps.clock)
        pod = f"{spec.name}_{spec.revision.partition('/')[0]}"
        existing = adopted.containers if adopted else ()
        self._containers = InstanceContainers(deps.runtime, deps.clock, self.name, existing, self._events, pod)
        self._times = StartTimes(requested_at)
        self._idle = IdleCycle(deps, self.name, self.request, self._lifecycle, self._containers, self._times)
        if idle is not None:
            self._idle.target, self._idle.since = idle
        self._may_hold_requests = adopted is not None and idle is None
        """Whether it was in service since it was last started or woken."""
        self._was_ready = adopted is not None
        """Whether it was ever in service; if so, it handles SIGTERM."""
        self._evicted = False
        self._drain_began = 0.0
        """When the wait for its requests began, in epoch seconds; 0 until that wait is over."""
        self._task: asyncio.Task[None] | None = None

    @property
    def spec(self) -> InstanceSpec:
        """The spec that it is started with; final once its volumes are prepared."""
        return self._start.spec

    @property
    def state(self) -> LifecycleState:
        return self._lifecycle.state

    @property
    def node(self) -> str:
        """Empty on a single machine."""
        return self._deps.node

    @property
    def idle_since(self) -> float:
        """Epoch seconds at which it became idle; 0 while it is not."""
        return self._idle.since

    @property
    def kept_bytes(self) -> int:
        """Memory that it keeps while it is paused."""
        return self._idle.kept_bytes

    @property
    def was_in_service(self) -> bool:
        """Whether it was ready since it was last started or woken."""
        return self._may_hold_requests

    @property
    def was_armed(self) -> bool:
        """Whether it was armed before it was needed, and then released."""
        return self._start.released

    def endpoint(self) -> Endpoint | None:
        """Return the endpoint for activators; None while it takes no requests and has none."""
        serving = self.state in (LifecycleState.READY, LifecycleState.GOING_IDLE, LifecycleState.DRAINING)
        if not serving or not self._may_hold_requests or not self.address:
            return None
        state: Literal["ready", "draining"] = "ready" if self.state is LifecycleState.READY else "draining"
        return Endpoint(self.name, self.address, self.spec.port, state, self._times.timing, self.node)

    def row(self) -> InstanceRow:
        """Return the status that users see."""
        stopped, ending = (
            self.state is LifecycleState.STOPPED,
            self.state in (LifecycleState.DRAINING, LifecycleState.LOST),
        )
        ready = self.state is LifecycleState.READY or (ending and self._may_hold_requests)
        rows = tuple(
            container_row(
                container, self._containers.progress(container.name), self.failure, self._containers.pod,
                stopped=stopped, ready=ready,
            )
            for container in self.spec.containers
        )  # fmt: skip
        return InstanceRow(
            self.name, self.address, self.spec.port, stage_of(self.state), self.created, rows, self.idle_since,
            self.kept_bytes, self._events.kept, self.node,
        )  # fmt: skip

    # Commands of the scaler and the leader

    def start(self) -> None:
        """Start it, or follow it when it exists already."""
        if self._adopted is not None:
            self._deps.reservations.put(self.name, self._idle.reserved)
        self._task = asyncio.create_task(self._run(), name=f"instance {self.name}")

    def keep_serving(self, timing: StartTiming | None) -> None:
        """It was in service when the last leader ended; it stays there until a probe fails."""
        self._times.timing = timing
        self._lifecycle.apply(Command.KEEP_SERVING)

    def retry_now(self) -> None:
        """The cause of a failed start may be gone: end the pause before the next attempt."""
        self._start.retry_now()

    def go_idle(self, target: IdleState) -> None:
        """Take it out of service and keep it idle; requests in flight end first."""
        self._idle.target = target
        self._lifecycle.apply(Command.GO_IDLE)

    def step_down(self) -> None:
        """Stop it; it is paused."""
        self._lifecycle.apply(Command.STEP_DOWN)

    def wake(self, now: float) -> None:
        """Put it back into service; it is idle.

        Args:
            now: epoch seconds of the decision.
        """
        self._times.requested, self._times.timing, self._adopted = now, None, None
        self._lifecycle.apply(Command.WAKE)

    def drain(self) -> None:
        """Take it out of service and remove it; requests in flight may finish."""
        self._lifecycle.apply(Command.DRAIN)

    def evict(self, message: str) -> None:
        """Remove it at once because of the resources that it uses; its requests are lost, as on Kubernetes."""
        if self._evicted or self.state is LifecycleState.REMOVED:
            return
        log.warning("instance evicted", instance=self.name, revision=self.revision, reason=message.strip())
        self._evicted = True
        self._events.evicted(message)
        self.address = ""
        self._lifecycle.apply(Command.EVICT)

    async def abandon(self) -> None:
        """Stop following it and leave it running."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Observations

    def sandbox_lost(self) -> None:
        """Its sandbox is gone: nothing in it can be reached, and the rest of it is useless."""
        self.address = ""
        self._lifecycle.apply(Observation.SANDBOX_LOST)

    def container_died(self, event: ContainerDied) -> None:
        """A container ended by itself; repeated calls change nothing."""
        self._containers.died(event)

    def became_ready(self) -> None:
        now = self._deps.clock()
        if self._adopted is None:
            self._times.ready(now)
        if not any(self._containers.is_crash_looping(container.name) for container in self.spec.containers):
            self.failure = None
        elif self.failure:
            asyncio.get_running_loop().call_later(RECOVERED_SECONDS, self._steady, self.failure)
        self._may_hold_requests = self._was_ready = True
        self._lifecycle.apply(Observation.PROBES_PASSED)

    def became_unready(self) -> None:
        self._lifecycle.apply(Observation.PROBES_FAILED)

    def probe_failed(self, message: str) -> None:
        """A probe fails: that is why the instance is not ready, unless a final failure is known."""
        if self.state is not LifecycleState.READY and (self.failure is None or not self.failure.final):
            self.failure = unhealthy(message)
        self.notify()

    def set_failure(self, failure: StartFailure | None) -> None:
        self.failure = failure
        self.notify()

    def notify(self) -> None:
        """Publish the instance: what users are shown of it has changed."""
        if self.state is LifecycleState.REMOVED:
            self._deps.on_removed(self.name)
        self._deps.on_change(self.revision)

    def _scheduled(self, address: str) -> None:
        self._times.scheduled, self.address = self._deps.clock(), address

    def _start_failed(self, failure: StartFailure | None) -> None:
        if failure and failure.reason not in NOT_OF_A_CONTAINER:
            self._events.failed(failure.message)
        self.set_failure(failure)

    def _steady(self, failure: StartFailure) -> None:
        """It has served for a while: the failure of its crash loop no longer counts, unless there was another one."""
        if self.failure is failure and self.state is LifecycleState.READY:
            self.set_failure(None)

    # The task

    async def _run(self) -> None:
        try:
            serving = self.state not in IDLE or await self._idle.wait()
            while serving:
                await first(self._serve(), self._lifecycle.reached(ENDING | {LifecycleState.GOING_IDLE}))
                serving = self.state is LifecycleState.GOING_IDLE and await self._drain_and_idle()
            self.drain()
            await self._drain_and_remove()
        finally:
            # Also when it is abandoned: the next leader makes its own reservations.
            self._deps.reservations.release(self.name)
        self._lifecycle.apply(Command.REMOVE)

    async def _serve(self) -> None:
        """Start it, then keep it in service until it is lost."""
        try:
            if not self.exists:
                self._started(await self._start.run())
            elif self._adopted is not None and self._adopted.state == "paused":
                await self._deps.runtime.resume(self.name)
            upkeep = Upkeep(self._deps, self.spec, self._probes, self._containers, self._events, self)
            confirmation = asyncio.get_running_loop().call_later(CONFIRM_SECONDS, self._confirm, upkeep)
            try:
                await upkeep.run(self.address)
            finally:
                confirmation.cancel()
        except Exception:
            # A bug that one Revision triggers must not end all others.
            log.exception("instance failed unexpectedly", instance=self.name)
            await asyncio.sleep(BUG_PAUSE_SECONDS)

    def _started(self, instance: Instance) -> None:
        self.exists, self.address = True, instance.address
        self._times.started = self._deps.clock()
        if self.was_armed:
            self._events.released()
        self._containers.started(instance.containers)
        self.notify()

    def _confirm(self, upkeep: Upkeep) -> None:
        if self.state is LifecycleState.READY and not upkeep.ready:
            log.warning("instance has not passed its probes since the takeover", instance=self.name)
            self.became_unready()

    async def _drain_and_idle(self) -> bool:
        """Go idle and wait; returns True when it is to serve again, False when it is to end."""
        began = self._deps.clock()
        if not await first(self._drained(), self._lifecycle.reached(ENDING)):
            self._drain_began = began  # a connection in it does not end: the instance cannot be frozen
            return False
        if self.state in ENDING:
            return False
        self._may_hold_requests = False
        return await self._idle.enter(self.spec.grace_seconds) and await self._idle.wait()

    async def _drain_and_remove(self) -> None:
        began = self._drain_began or self._deps.clock()
        if self._may_hold_requests and not self._drain_began:
            await first(self._drained(), self._lifecycle.reached({LifecycleState.LOST}))
        # A program that was never ready may ignore SIGTERM, and one that is lost cannot be sent SIGTERM.
        graceful = self._was_ready and self.state is not LifecycleState.LOST
        grace = remaining_grace(self.spec.grace_seconds, self._deps.clock() - began) if graceful else 0.0
        await remove(self._deps.runtime, self.name, grace)
        if self._evicted:
            await asyncio.sleep(EVICTED_SHOWN_SECONDS)

    async def _drained(self) -> bool:
        return await self._deps.wait_until_drained(self.name, self.revision, self.spec.grace_seconds)
