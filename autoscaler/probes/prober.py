"""Probing one instance: probes each of its containers and reports changes."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from autoscaler.probes.checks import Checker, Result
from autoscaler.probes.schedule import (
    LATER_PERIOD,
    Effect,
    Health,
    ProbeKind,
    Tally,
    active,
    begin,
    count,
    counts,
    delay,
    early_timeout,
    reports,
)
from autoscaler.probes.spec import Probes, ProbeSpec
from autoscaler.runtime.model import ExecResult
from autoscaler.runtime.protocol import Runtime
from knoll.values.errors import KnollError


@dataclass(frozen=True, slots=True)
class Ready:
    """Every container is ready."""


@dataclass(frozen=True, slots=True)
class Unready:
    """A container is no longer ready: the instance gets no new requests."""

    container: str
    message: str


@dataclass(frozen=True, slots=True)
class RestartNeeded:
    """A container failed its startup or liveness probe too often. It is not probed before `restarted`."""

    container: str
    message: str
    kind: ProbeKind = "liveness"


@dataclass(frozen=True, slots=True)
class Failing:
    """A probe failed; `schedule.reports` bounds how often that is reported."""

    container: str
    message: str
    """As kubelet: `Readiness probe failed: HTTP probe failed with statuscode: 503`."""
    kind: ProbeKind
    refused: bool = False
    """Nothing listens at its address and port."""


HealthChange = Ready | Unready | RestartNeeded | Failing


class ProbeFailedError(KnollError):
    """The instance does not become ready without a restart."""

    code, reason = 503, "ProbeFailed"

    def __init__(self, container: str, message: str) -> None:
        super().__init__(f"container {container}: {message}")
        self.container = container


class Prober:
    """The probes of one instance. Use as `async with`; leaving it stops all probes.

    An instance without any probe is ready at once.
    """

    def __init__(
        self, checker: Checker, runtime: Runtime, name: str, address: str, probes: Mapping[str, Probes]
    ) -> None:
        """
        Args:
            checker: shared by all probers.
            runtime: runs the commands of exec probes.
            name: the instance.
            address: its IP address.
            probes: of each container by name; not empty.
        """
        self._checker, self._runtime, self._name, self._address = checker, runtime, name, address
        self._probes = dict(probes)
        self._health: dict[str, Health] = {}
        self._ready = False
        self._tasks: dict[str, dict[ProbeKind, asyncio.Task[None]]] = {container: {} for container in probes}
        self._changes: asyncio.Queue[HealthChange] = asyncio.Queue()
        self._started_at: dict[str, float] = {}
        """When each container was last started, on the loop's clock."""

    async def __aenter__(self) -> "Prober":
        for container in self._probes:
            self._begin(container)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for group in self._tasks.values() for task in group.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Every container is ready now."""
        return self._ready

    async def changes(self) -> AsyncIterator[HealthChange]:
        """Yield changes from the beginning, forever; for one reader."""
        while True:
            yield await self._changes.get()

    async def until_ready(self) -> None:
        """Wait until every container is ready; bound it with a timeout. Consumes the changes up to then.

        Raises:
            ProbeFailedError: a container would have to be restarted.
        """
        while not self._ready:
            match await self._changes.get():
                case RestartNeeded(container, message):
                    raise ProbeFailedError(container, message)
                case _:
                    pass

    def stopped(self, container: str) -> None:
        """The container ended or is being stopped: until `restarted` it is not probed and not ready."""
        for task in self._tasks[container].values():
            task.cancel()
        self._tasks[container] = {}
        self._health[container] = Health()
        self._report_changes(container, ["unready"] if self._ready else [], "stopped")

    def restarted(self, container: str) -> None:
        """The container was restarted: its probes start again."""
        self.stopped(container)
        self._begin(container)

    def passed(self, container: str) -> bool:
        """Return whether the container may have requests: a probe succeeded since its start, or it needs none."""
        probes, health = self._probes[container], self._health[container]
        if probes.startup is None and probes.readiness is None:
            return True
        return health.startup.passed or health.readiness.passed or health.liveness.passed

    def _begin(self, container: str) -> None:
        self._started_at[container] = asyncio.get_running_loop().time()
        self._health[container], effects = begin(self._probes[container])
        self._report_changes(container, effects, "")
        self._run_active(container)

    def _run_active(self, container: str) -> None:
        tasks = self._tasks[container]
        for kind in active(self._probes[container], self._health[container]):
            if kind not in tasks:
                tasks[kind] = asyncio.create_task(self._follow(container, kind))

    async def _follow(self, container: str, kind: ProbeKind) -> None:
        probe, clock = self._probe(container, kind), asyncio.get_running_loop().time
        due = max(clock(), self._started_at[container] + probe.initial_delay_seconds)
        counted, report = None, _LastReport()
        await asyncio.sleep(due - clock())
        if not probe.eager:
            await asyncio.sleep(probe.period_seconds or LATER_PERIOD)
        while kind in active(self._probes[container], self._health[container]):
            elapsed = clock() - due
            counting = counts(probe, self._tally(container, kind).passed, elapsed, counted)
            seconds = probe.timeout_seconds if counting else early_timeout(probe, elapsed, counted)
            result = await self._check(container, probe, seconds)
            if counting:
                counted = elapsed
            if not result.ok:
                self._report(container, kind, result, report, elapsed, counting)
            if self._count(container, kind, result, counting):
                return
            took = clock() - due - elapsed
            wait = delay(probe, self._tally(container, kind).passed, clock() - due, counted)
            # A slow probe, such as a command, must not burden a program that is booting.
            await asyncio.sleep(wait if counting else max(wait, min(took, probe.period_seconds or LATER_PERIOD)))

    def _report(
        self, container: str, kind: ProbeKind, result: Result, report: "_LastReport", elapsed: float, counting: bool
    ) -> None:
        changed = result.message != report.message
        if reports(elapsed, counts=counting, changed=changed, reported=report.elapsed):
            report.elapsed, report.message = elapsed, result.message
            self._changes.put_nowait(Failing(container, _message(kind, result), kind, result.refused))

    def _count(self, container: str, kind: ProbeKind, result: Result, counting: bool) -> bool:
        """Count a result; returns whether the container has to be restarted."""
        health, effects = count(self._probes[container], self._health[container], kind, result.ok, counts=counting)
        self._health[container] = health
        self._report_changes(container, effects, _message(kind, result), kind)
        if "restart" in effects:
            self._cancel_others(container, kind)
            return True
        self._run_active(container)
        return False

    def _cancel_others(self, container: str, kind: ProbeKind) -> None:
        for other, task in self._tasks[container].items():
            if other != kind:
                task.cancel()

    def _report_changes(
        self, container: str, effects: Sequence[Effect], message: str, kind: ProbeKind = "liveness"
    ) -> None:
        if "restart" in effects:
            self._changes.put_nowait(RestartNeeded(container, message, kind))
        ready = len(self._health) == len(self._probes) and all(health.ready for health in self._health.values())
        if "unready" in effects and self._ready:
            self._ready = False
            self._changes.put_nowait(Unready(container, message))
        elif ready and not self._ready:
            self._ready = True
            self._changes.put_nowait(Ready())

    async def _check(self, container: str, probe: ProbeSpec, seconds: float) -> Result:
        async def run(command: Sequence[str], timeout_seconds: float) -> ExecResult:
            return await self._runtime.exec(self._name, container, command, timeout_seconds)

        return await self._checker.check(probe.check, self._address, run, seconds)

    def _tally(self, container: str, kind: ProbeKind) -> Tally:
        tally: Tally = getattr(self._health[container], kind)
        return tally

    def _probe(self, container: str, kind: ProbeKind) -> ProbeSpec:
        probe: ProbeSpec | None = getattr(self._probes[container], kind)
        assert probe is not None
        return probe


@dataclass(slots=True)
class _LastReport:
    """The last reported failure of one probe."""

    message: str = ""
    elapsed: float = -math.inf


def _message(kind: ProbeKind, result: Result) -> str:
    return f"{kind.capitalize()} probe failed: {result.message}"


async def until_ready(
    checker: Checker, runtime: Runtime, name: str, address: str, probes: Mapping[str, Probes]
) -> None:
    """Probe an instance until it is ready; see `Prober.until_ready`."""
    async with Prober(checker, runtime, name, address, probes) as prober:
        await prober.until_ready()
