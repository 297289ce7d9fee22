"""Keeps instances armed for Revisions at zero, in the background.

The leader names the candidates; `decision.armed_pool` decides which of them this machine has room for.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import structlog

from autoscaler.decision.armed_pool import Armed, ArmingCandidate, ArmingPlan, limit, plan
from autoscaler.instances.armed import ArmedEvent, ArmedInstance, ArmedState
from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.remove import remove
from autoscaler.runtime.model import ArmingUnavailableError, Instance
from autoscaler.spec.instance_spec import instance_spec, needs_preparation, new_instance_name, probes
from autoscaler.spec.revision_catalog import RevisionCatalog
from knoll.resources.models.revision import Revision
from knoll.values.errors import KnollError

log = structlog.get_logger()

TICK_SECONDS = 2.0
"""Interval at which memory and candidates are checked when no event arrives."""
RETRY_SECONDS = (10.0, 60.0, 600.0)
"""Delays before the next attempt after the first, second and later failures of one Revision."""
UNAVAILABLE_SECONDS = 600.0
"""Delay before the next attempt after the engine has reported that it cannot arm instances."""

Memory = Callable[[], tuple[int, int | None]]
"""Returns the machine's memory and the available part of it, in bytes; the latter is None when it is unknown."""


@dataclass(frozen=True, slots=True)
class _Failure:
    count: int
    until: float
    """Epoch seconds before which the Revision is not tried again."""


Candidates = Callable[[], Iterable[ArmingCandidate]]


class ArmedPool:
    """The armed instances of one machine."""

    def __init__(
        self,
        catalog: RevisionCatalog,
        is_managed: Callable[[str], bool],
        bound: int,
        memory: Memory,
        on_removed: Callable[[str], None],
    ) -> None:
        """
        Args:
            is_managed: returns whether a start has taken the armed instance of that name.
            bound: how many instances may be armed, >= 0.
            on_removed: called with the name of an instance that was removed without a release.
        """
        self._catalog, self._is_managed = catalog, is_managed
        self._bound, self._memory, self._on_removed = bound, memory, on_removed
        self._candidates: Candidates | None = None
        """None while there is no leader: then nothing is armed or disarmed."""
        self._instances: dict[str, ArmedInstance] = {}
        """By name."""
        self._failures: dict[str, _Failure] = {}
        """By uid of a Revision."""
        self._off_until = 0.0
        """Epoch seconds."""
        self._wake = asyncio.Event()
        self._deps: InstanceDeps | None = None
        self._on_change: Callable[[], None] = lambda: None
        self.problem = ""
        """Why no instance is armed although the setting allows it."""

    @property
    def waiting(self) -> int:
        """How many instances are armed."""
        return sum(instance.state is ArmedState.WAITING for instance in self._instances.values())

    def begin(self, deps: InstanceDeps) -> None:
        """Provide what instances need; called once, before any other call."""
        self._deps = deps

    # For the leader

    def follow(self, candidates: Candidates | None) -> None:
        """Arm instances of these Revisions from now on; None when there is no leader."""
        self._candidates = candidates
        self._wake.set()

    def listen(self, on_change: Callable[[], None]) -> None:
        """Register a callback for changes of what `armed` returns."""
        self._on_change = on_change

    def armed(self, uid: str | None = None) -> list[ArmedInstance]:
        """Return the armed instances. Args: uid: uid of a Revision; None for all Revisions."""
        waiting = (each for each in self._instances.values() if each.state is ArmedState.WAITING)
        return [each for each in waiting if uid in (None, each.spec.uid)]

    def take(self, name: str) -> ArmedInstance | None:
        """Return an armed instance for a start, which releases it at once, or removes it if it is stale."""
        instance = self._instances.get(name)
        if instance is None or instance.state is ArmedState.GONE:
            return None
        if instance.state is ArmedState.WAITING:
            instance.apply(ArmedEvent.TAKE)
            self._on_change()
        return instance

    # Changes from elsewhere

    def knows(self, name: str) -> bool:
        """Return whether an instance is armed, or is being armed or removed."""
        instance = self._instances.get(name)
        return instance is not None and instance.state is not ArmedState.GONE

    def wake(self) -> None:
        """Decide again: a Revision has scaled to zero, or is in use again."""
        self._wake.set()

    def sources_changed(self, uid: str) -> None:
        """An object changed that the containers of a Revision refer to: they read it when they were created."""
        for instance in self._of(uid):
            self._invalidate(instance, "an object that it refers to changed")
        self._failures.pop(uid, None)

    def revision_changed(self, revision: Revision) -> None:
        """A Revision's metadata changed: its containers may refer to it."""
        for instance in self._of(revision.metadata.uid):
            name = instance.spec.name
            if needs_preparation(revision.spec) or instance_spec(revision, name).digest != instance.spec.digest:
                self._invalidate(instance, "its Revision changed")

    def lost(self, name: str) -> None:
        """An armed instance has ended, as a whole or in part."""
        if instance := self._instances.get(name):
            self._invalidate(instance, "it has ended")

    def compare(self, present: Mapping[str, Instance]) -> None:
        """Compare with what the engine has: events may have been missed."""
        for name, instance in self._instances.items():
            gone = name not in present or present[name].state != "armed"
            if instance.state is ArmedState.WAITING and gone:
                self._invalidate(instance, "it has ended")

    def adopt(self, instance: Instance) -> bool:
        """Adopt an instance that an earlier process has armed; returns False when it is to be removed."""
        compressed = self._catalog.current(instance.uid)
        if compressed is None or not self._bound:
            return False
        revision = compressed.revision()
        # The objects that it refers to may have changed since.
        if needs_preparation(revision.spec):
            return False
        spec = instance_spec(revision, instance.name)
        if spec.digest != instance.armed:
            return False
        adopted = ArmedInstance(spec, probes(revision))
        adopted.address = instance.address
        adopted.apply(ArmedEvent.ARMED)
        self._instances[instance.name] = adopted
        self._wake.set()
        log.info("armed instance adopted", instance=instance.name, revision=instance.revision)
        return True

    # In the background

    async def run(self) -> None:
        """Keep instances armed, forever."""
        while True:
            self._wake.clear()
            if not await self._step():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        await self._wake.wait()

    async def _step(self) -> bool:
        """Remove what is stale, and arm one instance; returns whether there is more to do."""
        assert self._deps is not None
        now = self._deps.clock()
        self._forget_gone()
        for instance in self._instances.values():
            if instance.state is ArmedState.TAKEN and not self._is_managed(instance.spec.name):
                self._invalidate(instance, "the start that took it was abandoned")
        steps = self._plan(now)
        for name in steps.disarm:
            self._invalidate(self._instances[name], "no request is expected, or memory is short")
        for instance in [each for each in self._instances.values() if each.state is ArmedState.STALE]:
            await self._remove(instance)
        if not steps.arm or now < self._off_until:
            return False
        await self._arm(steps.arm[0], now)
        return True

    def _plan(self, now: float) -> ArmingPlan:
        if self._candidates is None:
            return ArmingPlan()
        usable = [each for each in self._instances.values() if each.state in (ArmedState.ARMING, ArmedState.WAITING)]
        armed = [Armed(instance.spec.name, instance.spec.uid) for instance in usable]
        most = limit(self._bound, len(armed), *self._memory()) if self._bound else 0
        candidates = self._candidates()
        return plan(islice((each for each in candidates if self._may_try(each.uid, now)), most), armed, most, now)

    def _may_try(self, uid: str, now: float) -> bool:
        failure = self._failures.get(uid)
        return (failure is None or now >= failure.until) and self._catalog.current(uid) is not None

    async def _arm(self, uid: str, now: float) -> None:
        assert self._deps is not None
        compressed, deps = self._catalog.current(uid), self._deps
        assert compressed is not None
        revision = compressed.revision()
        key = f"{revision.metadata.namespace}/{revision.metadata.name}"
        instance = ArmedInstance(instance_spec(revision, new_instance_name(revision, secrets.choice)), probes(revision))
        name = instance.spec.name
        self._instances[name] = instance
        try:
            if needs_preparation(revision.spec):
                instance.spec = await deps.prepare(revision, name)
            for container in instance.spec.containers:
                await deps.pull(instance.spec.revision, container.image)
            admit = partial(deps.admit, name, revision.metadata.namespace)
            instance.address = (await deps.runtime.arm(instance.spec, admit=admit)).address
        except BaseException as error:
            instance.apply(ArmedEvent.INVALIDATE)
            if not isinstance(error, KnollError):
                raise
            self._failed(uid, key, error, now)
            return
        self._failures.pop(uid, None)
        self.problem = ""
        instance.apply(ArmedEvent.ARMED)
        self._on_change()
        log.info("instance armed", instance=name, revision=key)

    def _failed(self, uid: str, key: str, error: KnollError, now: float) -> None:
        if isinstance(error, ArmingUnavailableError):
            if self.problem != str(error):
                log.warning("armed instances are off, cold starts take longer", reason=str(error))
            self.problem, self._off_until = str(error), now + UNAVAILABLE_SECONDS
            return
        before = self._failures.get(uid, _Failure(0, 0.0))
        pause = RETRY_SECONDS[min(before.count, len(RETRY_SECONDS) - 1)]
        self._failures[uid] = _Failure(before.count + 1, now + pause)
        log.warning("instance not armed", revision=key, error=str(error), retry_seconds=pause)

    async def _remove(self, instance: ArmedInstance) -> None:
        """Remove a stale instance, unless a start has taken it, which then removes it."""
        assert self._deps is not None
        name = instance.spec.name
        if self._is_managed(name):
            return
        await remove(self._deps.runtime, name, 0)
        instance.apply(ArmedEvent.END)
        self._on_removed(name)

    def _forget_gone(self) -> None:
        for name in [name for name, each in self._instances.items() if each.state is ArmedState.GONE]:
            del self._instances[name]
        for uid in [uid for uid in self._failures if self._catalog.current(uid) is None]:
            del self._failures[uid]

    def _of(self, uid: str) -> list[ArmedInstance]:
        return [instance for instance in self._instances.values() if instance.spec.uid == uid]

    def _invalidate(self, instance: ArmedInstance, reason: str) -> None:
        before = instance.state
        if instance.apply(ArmedEvent.INVALIDATE) is not before:
            log.info("armed instance invalidated", instance=instance.spec.name, reason=reason)
            self._on_change()
            self._wake.set()
