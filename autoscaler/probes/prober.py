"""Following one instance: probes each of its containers and tells what changes."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from autoscaler.probes.checks import Checker, Result
from autoscaler.probes.schedule import Effect, Health, Kind, active, begin, count, delay
from autoscaler.probes.spec import Probe, Probes
from autoscaler.runtime.protocol import ExecResult, Runtime
from knoll.errors import KnollError


@dataclass(frozen=True, slots=True)
class Ready:
    """Every container is ready."""


@dataclass(frozen=True, slots=True)
class Unready:
    """A container that was ready is not any more; no new request may go there."""

    container: str
    message: str


@dataclass(frozen=True, slots=True)
class RestartWanted:
    """A container failed its startup or liveness probe too often. It is not probed again before `restarted`."""

    container: str
    message: str


Change = Ready | Unready | RestartWanted


class ProbeFailedError(KnollError):
    """An instance will not become ready by waiting."""

    code, reason = 503, "ProbeFailed"

    def __init__(self, container: str, message: str) -> None:
        super().__init__(f"container {container}: {message}")
        self.container = container


class Prober:
    """The probes of one instance. Use as `async with`; leaving it ends all probing.

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
        self._tasks: dict[str, dict[Kind, asyncio.Task[None]]] = {container: {} for container in probes}
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._awake = asyncio.Event()
        self._awake.set()
        self.last_failure: dict[str, str] = {}
        """Container to what its last failed probe said; for the message of a condition."""

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

    async def changes(self) -> AsyncIterator[Change]:
        """What changes, from the beginning, for ever; for one reader."""
        while True:
            yield await self._changes.get()

    async def until_ready(self) -> None:
        """Wait until every container is ready; bound it with a timeout. Swallows the changes up to there.

        Raises:
            ProbeFailedError: a container would have to be started again.
        """
        while not self._ready:
            match await self._changes.get():
                case RestartWanted(container, message):
                    raise ProbeFailedError(container, message)
                case _:
                    pass

    def restarted(self, container: str) -> None:
        """The container was started again: its probes begin anew, and the instance is not ready until they say so."""
        for task in self._tasks[container].values():
            task.cancel()
        self._tasks[container] = {}
        self._became(container, ["unready"] if self._ready else [], "started again")
        self._begin(container)

    def suspend(self) -> None:
        """Ask nothing more until `resume`: a paused instance would only fail."""
        self._awake.clear()

    def resume(self) -> None:
        self._awake.set()

    def _begin(self, container: str) -> None:
        self._health[container], effects = begin(self._probes[container])
        self._became(container, effects, "")
        self._run_active(container)

    def _run_active(self, container: str) -> None:
        tasks, wanted = self._tasks[container], active(self._probes[container], self._health[container])
        for kind in wanted:
            if kind not in tasks:
                tasks[kind] = asyncio.create_task(self._follow(container, kind))

    async def _follow(self, container: str, kind: Kind) -> None:
        probe = self._probe(container, kind)
        if probe.initial_delay_seconds:
            await asyncio.sleep(probe.initial_delay_seconds)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while kind in active(self._probes[container], self._health[container]):
            await self._awake.wait()
            result = await self._ask(container, probe)
            if not self._awake.is_set():
                continue  # it was paused under the probe: the answer says nothing
            if self._took(container, kind, result):
                return
            tally = getattr(self._health[container], kind)
            await asyncio.sleep(delay(probe, tally, loop.time() - began))

    def _took(self, container: str, kind: Kind, result: Result) -> bool:
        """Count a result; True when the container is to be started again."""
        if not result.ok:
            self.last_failure[container] = result.message
        health, effects = count(self._probes[container], self._health[container], kind, result.ok)
        self._health[container] = health
        self._became(container, effects, f"{kind} probe failed: {result.message}")
        if "restart" in effects:
            self._end_others(container, kind)
            return True
        self._run_active(container)
        return False

    def _end_others(self, container: str, kind: Kind) -> None:
        for other, task in self._tasks[container].items():
            if other != kind:
                task.cancel()

    def _became(self, container: str, effects: Sequence[Effect], message: str) -> None:
        if "restart" in effects:
            self._changes.put_nowait(RestartWanted(container, message))
        ready = len(self._health) == len(self._probes) and all(one.ready for one in self._health.values())
        if "unready" in effects and self._ready:
            self._ready = False
            self._changes.put_nowait(Unready(container, message))
        elif ready and not self._ready:
            self._ready = True
            self._changes.put_nowait(Ready())

    async def _ask(self, container: str, probe: Probe) -> Result:
        async def run(command: Sequence[str], seconds: float) -> ExecResult:
            return await self._runtime.exec(self._name, container, command, seconds)

        return await self._checker.check(probe.check, self._address, run, probe.timeout_seconds)

    def _probe(self, container: str, kind: Kind) -> Probe:
        probe: Probe | None = getattr(self._probes[container], kind)
        assert probe is not None
        return probe


async def until_ready(
    checker: Checker, runtime: Runtime, name: str, address: str, probes: Mapping[str, Probes]
) -> None:
    """Probe an instance until it is ready, and no longer; see `Prober.until_ready`."""
    async with Prober(checker, runtime, name, address, probes) as prober:
        await prober.until_ready()
