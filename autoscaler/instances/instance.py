"""One instance from its start to its end: starts it, probes it, starts it again, drains it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal

import structlog

from autoscaler.decision.capacity import Need, need_of
from autoscaler.decision.idle_policy import Rung
from autoscaler.instances.containers import Containers
from autoscaler.instances.deps import World
from autoscaler.instances.events import InstanceEvents
from autoscaler.instances.failures import MISSING_SOURCE, NOT_OF_A_CONTAINER, unhealthy
from autoscaler.instances.start import Launch
from autoscaler.instances.upkeep import Upkeep
from autoscaler.probes.spec import Probes
from autoscaler.runtime.protocol import ContainerDied, Instance, InstanceSpec
from knoll.messages.endpoints import Endpoint, StartTiming
from knoll.messages.instances import InstanceRow
from knoll.messages.instances import Stage as ShownStage
from knoll.messages.scale import StartFailure
from knoll.values.errors import KnollError

__all__ = ["MISSING_SOURCE", "RUNGS", "Member", "Stage", "World"]

log = structlog.get_logger()

Stage = Literal["starting", "ready", "unready", "draining", "gone", "resting", "paused", "stopped"]
"""`resting`: on its way to a rung of the idle ladder, its last requests end."""
RUNGS: tuple[Rung, ...] = ("paused", "stopped")

DOUBT_SECONDS = 10.0
"""How long an instance that was taken over in service stays there without a probe that says so again."""
LEAST_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL that are left when ending the requests took all of the grace."""
STEADY_SECONDS = 30.0
"""How long a container that crashed again and again must serve before nothing is said of that any more."""
EVICTED_SHOWN_SECONDS = 1.0
"""An evicted instance is still shown for so long, so that its Event reaches the API before its Pod goes."""
BUG_PAUSE = 5.0
"""Before an instance that failed by a mistake of ours is replaced."""


class Member:
    """One instance. Its task does all that happens to it."""

    def __init__(
        self,
        world: World,
        spec: InstanceSpec,
        probes: Mapping[str, Probes],
        *,
        wanted: float,
        prepare: Callable[[], Awaitable[InstanceSpec]] | None = None,
        adopted: Instance | None = None,
        rests: tuple[Rung, float] | None = None,
    ) -> None:
        """
        Args:
            wanted: epoch seconds of the decision that asked for it.
            prepare: gives the spec to start, once what it takes from elsewhere is there; None starts `spec`.
            adopted: the instance, when it is there already.
            rests: on which rung of the idle ladder that is, and since when (epoch seconds); None: on none.
        """
        self.name, self.revision, self.uid = spec.name, spec.revision, spec.uid
        self.stage: Stage = rests[0] if rests else "starting"
        self.since = rests[1] if rests else 0.0
        """When it came to its rung, epoch seconds."""
        self.kept_bytes = 0
        """Memory that it keeps while it is paused."""
        self.need = need_of(spec)
        self.address = adopted.address if adopted else ""
        self.created = adopted.created if adopted else wanted
        self.failure: StartFailure | None = None
        self.instance = adopted
        self._world, self._probes, self._wanted = world, probes, wanted
        self._launch = Launch(world, spec, self.need, prepare, failed=self._not_launched, scheduled=self._is_scheduled)
        self._scheduled = self._started = 0.0
        self._timing: StartTiming | None = None
        self._adopted = adopted
        self._served = adopted is not None and rests is None
        """Requests may be in it."""
        self._waited_since = 0.0
        """Since when its requests were waited for, epoch seconds; 0 while they still may be."""
        self._worked = adopted is not None
        """It was in service at some time: it ends by itself, when it is told to."""
        self._rung: Rung = rests[0] if rests else "paused"
        """Where it goes when it rests."""
        self._rest, self._wake, self._deeper = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._events = InstanceEvents(world.clock)
        pod = f"{spec.name}_{spec.revision.partition('/')[0]}"
        there = adopted.containers if adopted else ()
        self._containers = Containers(world.runtime, world.clock, self.name, there, self._events, pod)
        self._leave, self._lost, self._evicted = asyncio.Event(), asyncio.Event(), False
        self._task: asyncio.Task[None] | None = None

    @property
    def spec(self) -> InstanceSpec:
        """What is started, or was."""
        return self._launch.spec

    # For its scaler

    def begin(self) -> None:
        if self._adopted is not None:
            self._world.room.put(self.name, self._held)
        self._task = asyncio.create_task(self._live(), name=f"instance {self.name}")

    def endpoint(self) -> Endpoint | None:
        """What activators are told; None while it takes no requests."""
        if self.stage not in ("ready", "resting", "draining") or not self._served or not self.address:
            return None
        state: Literal["ready", "draining"] = "ready" if self.stage == "ready" else "draining"
        return Endpoint(self.name, self.address, self.spec.port, state, self._timing)

    @property
    def served(self) -> bool:
        """It was ready at some time."""
        return self._served

    def row(self) -> InstanceRow:
        """What users are shown of it."""
        stopped, ready = self.stage == "stopped", self.stage == "ready" or (self.stage == "draining" and self._served)
        shown = tuple(
            self._containers.row(one, self.failure, stopped=stopped, ready=ready) for one in self.spec.containers
        )
        return InstanceRow(
            self.name, self.address, self.spec.port, self._shown(), self.created, shown, self.since, self.kept_bytes,
            self._events.kept,
        )  # fmt: skip

    def _shown(self) -> ShownStage:
        if self.stage == "gone":
            return "draining"
        return "unready" if self.stage == "resting" else self.stage

    def try_again(self) -> None:
        """What a start failed for may have changed: a pause before the next try is over."""
        self._launch.try_again()

    def drain(self) -> None:
        """Take it out of service and end it; what is in flight may finish."""
        self._set("draining")
        self._leave.set()

    def rest(self, rung: Rung) -> None:
        """Take it out of service, and have it wait there for more; what is in flight ends first."""
        if self.stage == "ready":
            self._rung = rung
            self._set("resting")
            self._rest.set()

    def wake(self, now: float) -> None:
        """Have it serve again: it rests on a rung of the ladder.

        Args:
            now: epoch seconds of the decision that asked for it.
        """
        if self.stage in RUNGS:
            self._wanted = now
            self._set("starting")
            self._wake.set()

    def descend(self) -> None:
        """From paused to stopped."""
        if self.stage == "paused":
            self._deeper.set()

    def lose(self) -> None:
        """Its sandbox is gone: nothing in it can be reached, and what is left of it is of no use."""
        self.address = ""
        self._lost.set()
        self._world.changed(self)
        self.drain()

    def evict(self, message: str) -> None:
        """End it at once, for what it uses too much of; its requests are lost, as on Kubernetes."""
        if self._evicted or self.stage == "gone":
            return
        log.warning("instance evicted", instance=self.name, revision=self.revision, why=message.strip())
        self._evicted = True
        self._events.evicted(message)
        self.lose()

    def died(self, event: ContainerDied) -> None:
        """A container ended by itself; being told twice changes nothing."""
        self._containers.died(event)

    def serving_before(self, timing: StartTiming | None) -> None:
        """It was in service when its last keeper ended, and stays so until a probe says otherwise."""
        self.stage, self._timing = "ready", timing

    async def abandon(self) -> None:
        """Stop looking after it and leave it running."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Its life

    async def _live(self) -> None:
        try:
            if self.stage not in RUNGS or await self._resting(self._rung):
                await self._serve_and_rest()
            self.drain()
            began = self._waited_since or self._world.clock()
            if self._served and not self._waited_since:
                await _first(self._world.drained(self), self._lost.wait())
            await self._stop(self._grace_left(began))
            if self._evicted:
                await asyncio.sleep(EVICTED_SHOWN_SECONDS)
        finally:
            # Also when it is abandoned: who takes over counts anew.
            self._world.room.free(self.name)
        self._set("gone")

    def _grace_left(self, began: float) -> float:
        """Of the time that it has to end: waiting for its requests counts."""
        if not self._worked or self._lost.is_set():
            return 0.0
        return max(min(LEAST_GRACE, self.spec.grace_seconds), self.spec.grace_seconds - (self._world.clock() - began))

    async def _serve_and_rest(self) -> None:
        while True:
            await _first(self._serve_or_complain(), self._leave.wait(), self._rest.wait())
            self._rest.clear()
            if self._leave.is_set() or self.stage != "resting" or not await self._rested():
                return

    # The idle ladder

    async def _rested(self) -> bool:
        """Go to its rung and wait there; True when it is to serve again, False when it is to end."""
        began = self._world.clock()
        if not await _first(self._world.drained(self), self._lost.wait(), self._leave.wait()):
            self._waited_since = began  # something is left in it that does not end: it cannot be frozen
            return False
        if self._leave.is_set():
            return False
        self._served = False
        try:
            if self._rung == "stopped":
                await self._world.runtime.unforward(self.name)
                await self._world.runtime.halt(self.name, self.spec.grace_seconds)
            else:
                await self._world.runtime.pause(self.name)
        except KnollError as error:
            log.warning("instance ends instead of resting", instance=self.name, error=str(error))
            return False
        return await self._resting(self._rung)

    async def _resting(self, rung: Rung) -> bool:
        """Wait on its rungs; see `_rested`."""
        while True:
            await self._settle(rung)
            await _first(
                self._wake.wait(), self._leave.wait(), self._lost.wait(), self._containers.death(), self._deeper.wait()
            )
            if self._leave.is_set() or self._containers.down:
                return False
            if self._wake.is_set():
                return await self._woken(rung)
            try:
                await self._world.runtime.unforward(self.name)
                await self._world.runtime.halt(self.name)
            except KnollError as error:
                log.warning("instance ends instead of resting", instance=self.name, error=str(error))
                return False
            rung = "stopped"
            self._deeper.clear()

    async def _settle(self, rung: Rung) -> None:
        """It is on its rung now."""
        self._rung = rung
        self.kept_bytes = 0
        if rung == "paused":
            with contextlib.suppress(KnollError):
                self.kept_bytes = await self._world.runtime.memory_bytes(self.name)
        if self.stage != rung and not self._wake.is_set():
            self.since = self._world.clock()
            self._set(rung)
            log.info("instance rests", instance=self.name, rung=rung, kept_bytes=self.kept_bytes)
        self._world.room.keep(self.name, self._held)
        self._world.changed(self)

    async def _woken(self, rung: Rung) -> bool:
        runtime, clock = self._world.runtime, self._world.clock
        self._wake.clear()
        self._deeper.clear()
        self.since, self.kept_bytes, self._timing, self._adopted = 0.0, 0, None, None
        self._scheduled = clock()
        try:
            if rung == "stopped":
                self._containers.started(await runtime.unhalt(self.name))
            else:
                await runtime.resume(self.name)
        except KnollError as error:
            log.warning("instance not woken", instance=self.name, error=str(error))
            return False
        self._started = clock()
        self._world.room.put(self.name, self.need)
        log.info("instance woken", instance=self.name, rung=rung)
        return True

    @property
    def _held(self) -> Need:
        """What of the machine it has just now: resting costs no cores."""
        if self.stage not in RUNGS:
            return self.need
        return Need(0.0, self.need.memory_bytes if self.stage == "paused" else 0)

    # In service

    async def _serve_or_complain(self) -> None:
        try:
            await self._serve()
        except Exception:
            # One Revision with which we cannot cope must not end all others.
            log.exception("instance given up", instance=self.name)
            await asyncio.sleep(BUG_PAUSE)

    async def _serve(self) -> None:
        """Start and look after it until it is lost."""
        if self.instance is None:
            self._runs(await self._launch.run())
        elif self._adopted is not None and self._adopted.state == "paused":
            await self._world.runtime.resume(self.name)
        await self._look_after()

    def _is_scheduled(self, instance: Instance) -> None:
        self._scheduled, self.address = self._world.clock(), instance.address

    def _runs(self, instance: Instance) -> None:
        self.instance, self.address = instance, instance.address
        self._started = self._world.clock()
        self._containers.started(instance.containers)
        self._world.changed(self)

    async def _stop(self, grace: float | None) -> None:
        while True:
            try:
                await self._world.runtime.stop(self.name, grace)
                return
            except KnollError as error:
                log.warning("instance not stopped yet", instance=self.name, error=str(error))
                await asyncio.sleep(1)

    async def _look_after(self) -> None:
        """Keep it in service until it is lost."""
        upkeep = Upkeep(self._world, self.spec, self._probes, self._containers, self._events, self)
        doubt = asyncio.get_running_loop().call_later(DOUBT_SECONDS, self._doubt, upkeep)
        try:
            await upkeep.run(self.address)
        finally:
            doubt.cancel()

    def _doubt(self, upkeep: Upkeep) -> None:
        if self.stage == "ready" and not upkeep.ready:
            log.warning("instance does not answer since it was taken over", instance=self.name)
            self.became_unready()

    # For its upkeep

    def became_ready(self) -> None:
        now = self._world.clock()
        if self._timing is None and self._adopted is None:
            scheduled = self._scheduled or self._wanted
            self._timing = StartTiming(self._wanted, scheduled, self._started or scheduled, now)
        if not any(self._containers.crashing(one.name) for one in self.spec.containers):
            self.failure = None
        elif self.failure:
            asyncio.get_running_loop().call_later(STEADY_SECONDS, self._steady, self.failure)
        self._served = self._worked = True
        self._set("ready")

    def _steady(self, failure: StartFailure) -> None:
        """It has served for a while: what was said of its crashes is over, unless there was another."""
        if self.failure is failure and self.stage == "ready":
            self.failed(None)

    def became_unready(self) -> None:
        if self.stage == "ready":
            self._set("unready")

    def failing(self, message: str) -> None:
        """A probe fails: that is why it is not ready, unless more is known."""
        if self.stage != "ready" and (self.failure is None or not self.failure.final):
            self.failure = unhealthy(message)
        self._world.changed(self)

    def changed(self) -> None:
        """Users are to be shown something else."""
        self._world.changed(self)

    def _not_launched(self, failure: StartFailure | None) -> None:
        if failure and failure.reason not in NOT_OF_A_CONTAINER:
            self._events.failed(failure.message)
        self.failed(failure)

    def failed(self, failure: StartFailure | None) -> None:
        self.failure = failure
        self._world.changed(self)

    def _set(self, stage: Stage) -> None:
        if stage != self.stage and self.stage != "gone" and not (self.stage == "draining" and stage != "gone"):
            self.stage = stage
            self._world.changed(self)


async def _first(*ways: Coroutine[Any, Any, object]) -> bool:
    """Wait for the first of several, and end the others. An error of the first is raised.

    Returns:
        Whether nothing that ended gave False.
    """
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        results = [task.result() for task in done]
        return False not in results
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
