"""The containers of one instance: their states, and restarting one of them in place."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import structlog

from autoscaler.instances.container_status import ContainerProgress, RestartPhase
from autoscaler.instances.events import InstanceEvents
from autoscaler.instances.failures import exit_failure, start_failure
from autoscaler.instances.restart_backoff import Restarts, current_pause, ended
from autoscaler.runtime.model import KILLED, ContainerDied, ContainerState
from autoscaler.runtime.protocol import Runtime
from autoscaler.runtime.termination_message import termination_message
from knoll.messages.instances import ContainerEnd
from knoll.messages.scale import StartFailure
from knoll.values.errors import KnollError, NotFoundError

log = structlog.get_logger()

CRASH_LOOP = 3
"""A container counts as crash-looping after this many restarts since it was last steady."""


class InstanceContainers:
    """All containers of an instance. Owned by a `ManagedInstance`."""

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
            adopted: containers that exist already.
            events: where restarts are recorded.
            pod: how messages name the Pod.
        """
        self._runtime, self._clock, self._instance = runtime, clock, instance
        self._events, self.pod = events, pod
        self._phases: dict[str, RestartPhase] = {}
        self._states: dict[str, ContainerState] = {}
        """As of their last start."""
        self.started(adopted)
        self._restarts = {state.name: Restarts(state.restarts, state.started_at) for state in self._states.values()}
        self._ends: dict[str, ContainerEnd] = {}
        self._deaths: asyncio.Queue[ContainerDied] = asyncio.Queue()
        self.down: set[str] = set()
        """Containers that are being restarted or wait for it."""
        self._starting: dict[str, ContainerDied | None] = {}
        """Containers that the engine is starting right now, to how they ended in the meantime, if they did."""
        self._engine_turn = asyncio.Lock()

    def started(self, states: Iterable[ContainerState]) -> None:
        """Record that the engine has started all of them."""
        self._states = {state.name: state for state in states}

    def died(self, event: ContainerDied) -> None:
        """Record that a container ended by itself; repeated calls change nothing."""
        if event.container in self._starting:
            self._starting[event.container] = event
        elif event.container not in self.down:
            self.down.add(event.container)
            self._deaths.put_nowait(event)

    async def death(self) -> ContainerDied:
        """Wait for the next container that ends by itself."""
        return await self._deaths.get()

    def is_crash_looping(self, container: str) -> bool:
        """Return whether a container ended, or had to be stopped, repeatedly."""
        return self._restarts.get(container, Restarts()).count >= CRASH_LOOP

    def progress(self, container: str) -> ContainerProgress:
        """Return what is known of a container."""
        return ContainerProgress(
            self._states.get(container),
            self._ends.get(container),
            container in self.down,
            self._phases.get(container) if container in self.down else None,
            current_pause(self._restarts.get(container, Restarts())),
        )

    def stopping(self, container: str) -> None:
        """Record that a container is about to be stopped and restarted."""
        self.down.add(container)
        self._phases[container] = RestartPhase.STOPPING

    async def stop(self, container: str, grace_seconds: float | None) -> bool:
        """Stop a container for which `stopping` was called; `restart` comes next.

        Args:
            grace_seconds: from SIGTERM to SIGKILL; None is the instance's.

        Returns:
            False when the container does not exist any more.
        """
        try:
            state = await self._runtime.stop_container(self._instance, container, grace_seconds)
        except NotFoundError:
            return False
        except KnollError as error:
            log.warning("container not stopped yet", instance=self._instance, container=container, error=str(error))
            return True  # `restart` tries again
        code = KILLED if state.exit_code is None else state.exit_code
        self._ends[container] = ContainerEnd(code, "Error" if code else "Completed", self._clock())
        return True

    async def restart(
        self,
        container: str,
        death: ContainerDied | None,
        on_failure: Callable[[StartFailure], None],
        on_change: Callable[[], None],
    ) -> bool:
        """Restart a container, with Kubernetes' back-off, until the engine has started it.

        Args:
            death: how it ended; None when it was stopped by `stop`.
            on_failure: called with the failure of each attempt.
            on_change: called when what users are shown changes.

        Returns:
            False when the container does not exist any more.
        """
        while True:
            if death:
                on_failure(await self._record_death(death))
            pause, self._restarts[container] = ended(self._restarts.get(container, Restarts()), self._clock())
            if pause:
                self._phases[container] = RestartPhase.WAITING
                self._events.back_off(container, self.pod)
                on_change()
                await asyncio.sleep(pause)
            self._phases[container] = RestartPhase.STARTING
            self._starting[container] = None
            try:
                async with self._engine_turn:
                    self._states[container] = await self._runtime.restart_container(self._instance, container)
            except NotFoundError:
                return False
            except KnollError as error:
                on_failure(start_failure(error, 1))
                self._events.failed(str(error))
                log.warning("container not restarted", instance=self._instance, container=container, error=str(error))
                del self._starting[container]
                death = None
                continue
            death = self._starting.pop(container)
            if death is None:
                self.down.discard(container)
                self._phases.pop(container, None)
                return True

    async def _record_death(self, event: ContainerDied) -> StartFailure:
        reason = "OOMKilled" if event.oom_killed else "Error" if event.exit_code else "Completed"
        self._ends[event.container] = ContainerEnd(event.exit_code, reason, self._clock())
        failure = exit_failure(event, "")
        log.info("container ended", instance=self._instance, container=event.container, reason=failure.reason)
        return exit_failure(event, await self._termination_message(event.container))

    async def _termination_message(self, container: str) -> str:
        with contextlib.suppress(KnollError):
            return await termination_message(self._runtime, self._instance, container)
        return ""
