"""The containers of one instance: how each of them stands, and starting one again in its place."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from enum import Enum

import structlog

from autoscaler.instances.events import InstanceEvents
from autoscaler.instances.failures import BEFORE_A_CONTAINER, failure_of, failure_of_end
from autoscaler.instances.restart_backoff import Restarts, current_pause, ended
from autoscaler.runtime.protocol import ContainerDied, ContainerSpec, ContainerState, Runtime
from autoscaler.runtime.termination_message import last_words
from knoll.messages.instances import ContainerEnd, ContainerRow
from knoll.messages.scale import StartFailure
from knoll.values.errors import KnollError, NotFoundError

log = structlog.get_logger()

KILLED = 137
CRASH_LOOP = 3
"""Starts again since it was steady last, after which a container is said to crash again and again."""


class Phase(Enum):
    """Where a container is on its way to the next start: STOPPING → WAITING → STARTING, or from WAITING on if it ended
    by itself. It runs in the first."""

    STOPPING = "told to end; its grace is running"
    WAITING = "ended; the back-off is running"
    STARTING = "ended; the engine is starting it"


class Containers:
    """All containers of an instance. Owned by its member."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Callable[[], float],
        instance: str,
        adopted: Iterable[ContainerState],
        events: InstanceEvents,
        pod: str,
    ) -> None:
        """
        Args:
            adopted: those that are there already.
            events: gets what happens to them.
            pod: how messages name the Pod.
        """
        self._runtime, self._clock, self._instance = runtime, clock, instance
        self._events, self._pod = events, pod
        self._phases: dict[str, Phase] = {}
        self._states: dict[str, ContainerState] = {}
        """As of their last start."""
        self.started(adopted)
        self._restarts = {one.name: Restarts(one.restarts, one.started_at) for one in self._states.values()}
        self._ends: dict[str, ContainerEnd] = {}
        self._deaths: asyncio.Queue[ContainerDied] = asyncio.Queue()
        self.down: set[str] = set()
        """Those that are being started again, or wait for it."""
        self._again: dict[str, ContainerDied | None] = {}
        """Container that the engine is starting again just now to its end on the way, if any."""
        self._engine = asyncio.Lock()

    def started(self, states: Iterable[ContainerState]) -> None:
        """The engine has started all of them."""
        self._states = {one.name: one for one in states}

    def died(self, event: ContainerDied) -> None:
        """A container ended by itself; being told twice changes nothing."""
        if event.container in self._again:
            self._again[event.container] = event
        elif event.container not in self.down:
            self.down.add(event.container)
            self._deaths.put_nowait(event)

    async def death(self) -> ContainerDied:
        """Wait for the next one that ends by itself."""
        return await self._deaths.get()

    def crashing(self, container: str) -> bool:
        """Whether it ended, or had to be ended, again and again."""
        return self._restarts.get(container, Restarts()).count >= CRASH_LOOP

    def stopping(self, container: str) -> None:
        """It is about to be ended, to be started again."""
        self.down.add(container)
        self._phases[container] = Phase.STOPPING

    async def end(self, container: str, grace_seconds: float | None) -> bool:
        """End one that is `stopping`; `mend` goes on from there.

        Args:
            grace_seconds: from SIGTERM to SIGKILL; None is the instance's.

        Returns:
            False when there is no such container any more.
        """
        try:
            state = await self._runtime.end(self._instance, container, grace_seconds)
        except NotFoundError:
            return False
        except KnollError as error:
            log.warning("container not ended yet", instance=self._instance, container=container, error=str(error))
            return True  # `mend` tries again
        code = KILLED if state.exit_code is None else state.exit_code
        self._ends[container] = ContainerEnd(code, "Error" if code else "Completed", self._clock())
        return True

    async def mend(
        self,
        container: str,
        death: ContainerDied | None,
        failed: Callable[[StartFailure], None],
        changed: Callable[[], None],
    ) -> bool:
        """Start a container again, as often as it takes, with the pauses that are its due.

        Args:
            death: how it ended; None for one that was ended by `end`.
            failed: called with what stands in the way.
            changed: called when users are to be shown something else.

        Returns:
            False when there is no such container any more.
        """
        while True:
            if death:
                failed(await self._note_death(death))
            pause, self._restarts[container] = ended(self._restarts.get(container, Restarts()), self._clock())
            if pause:
                self._phases[container] = Phase.WAITING
                self._events.back_off(container, self._pod)
                changed()
                await asyncio.sleep(pause)
            self._phases[container] = Phase.STARTING
            self._again[container] = None
            try:
                async with self._engine:
                    self._states[container] = await self._runtime.restart(self._instance, container)
            except NotFoundError:
                return False
            except KnollError as error:
                failed(failure_of(error, 1))
                self._events.failed(str(error))
                log.warning("container not started again", instance=self._instance, container=container,
                            error=str(error))  # fmt: skip
                del self._again[container]
                death = None
                continue
            death = self._again.pop(container)
            if death is None:
                self.down.discard(container)
                self._phases.pop(container, None)
                return True

    async def _note_death(self, event: ContainerDied) -> StartFailure:
        word = "OOMKilled" if event.oom_killed else "Error" if event.exit_code else "Completed"
        self._ends[event.container] = ContainerEnd(event.exit_code, word, self._clock())
        failure = failure_of_end(event, "")
        log.info("container ended", instance=self._instance, container=event.container, why=failure.reason)
        return failure_of_end(event, await self._last_words(event.container))

    async def _last_words(self, container: str) -> str:
        with contextlib.suppress(KnollError):
            return await last_words(self._runtime, self._instance, container)
        return ""

    def row(self, one: ContainerSpec, failure: StartFailure | None, *, stopped: bool, ready: bool) -> ContainerRow:
        """What users are shown of a container.

        Args:
            failure: of the instance, if any.
            stopped: the instance rests with its processes ended.
            ready: the instance is in service.
        """
        state, last = self._states.get(one.name), self._ends.get(one.name)
        if state is None:
            reason, message = _why_not_started(failure)
            return ContainerRow(one.name, one.image, running=False, ready=False, reason=reason, message=message)
        if stopped:
            return ContainerRow(
                one.name, one.image, running=False, ready=False, restarts=state.restarts, reason="Stopped", last=last
            )
        phase = self._phases.get(one.name) if one.name in self.down else None
        if one.name not in self.down or phase is Phase.STOPPING:
            return ContainerRow(
                one.name, one.image, running=True, ready=ready and phase is None, restarts=state.restarts,
                started=state.started_at, last=last,
            )  # fmt: skip
        # Without a pause there is no back-off: it has ended, and its next start is on its way.
        reason, message = (last.reason, "") if last else ("ContainerCreating", "")
        if phase is Phase.WAITING:
            reason = "CrashLoopBackOff"
            pause = current_pause(self._restarts[one.name])
            message = f"back-off {pause:g}s restarting failed container={one.name} pod={self._pod}"
        return ContainerRow(
            one.name, one.image, running=False, ready=False, restarts=state.restarts, started=state.started_at,
            reason=reason, message=message, last=last,
        )  # fmt: skip


def _why_not_started(failure: StartFailure | None) -> tuple[str, str]:
    if failure is None:
        return "ContainerCreating", ""
    return failure.reason if failure.reason in BEFORE_A_CONTAINER else "RunContainerError", failure.message
