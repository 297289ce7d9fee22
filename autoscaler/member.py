"""One instance from its start to its end: starts it, probes it, starts it again, drains it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import structlog

from autoscaler.probes.checks import Checker
from autoscaler.probes.prober import Change, Prober, Ready, RestartWanted, Unready
from autoscaler.probes.spec import Probes
from autoscaler.runtime.protocol import (
    ContainerDied,
    Instance,
    InstanceSpec,
    InstanceStartError,
    LogChunk,
    Runtime,
)
from knoll.errors import ImageError, KnollError, NotFoundError, RuntimeUnavailableError
from knoll.scaling import Endpoint, Failure, StartTiming

log = structlog.get_logger()

Stage = Literal["starting", "ready", "unready", "draining", "gone"]

RESTART_PAUSES = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds before each further start of a container that ended: the first at once, then as Kubernetes does."""
STEADY_SECONDS = 600.0
"""A container that ran this long begins anew with its pauses."""
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses between tries to start an instance that the engine refused."""
WORDS_BYTES = 2048
"""Of a container's last output that go into a message."""
EXIT_PREFIX = "Container failed with: "


@dataclass(frozen=True, slots=True)
class World:
    """What members share."""

    runtime: Runtime
    checker: Checker
    changed: Callable[["Member"], None]
    """Told whenever a member's stage or failure is another."""
    drained: Callable[["Member"], Awaitable[None]]
    """Waits until nobody sends requests to a member any more and none is left in it, or its grace is over."""
    clock: Callable[[], float] = time.time


def pause_before(restarts: int) -> float:
    """Seconds before a container's next start, from how often it was started again."""
    return RESTART_PAUSES[min(restarts, len(RESTART_PAUSES) - 1)]


class Member:
    """One instance. Its task does all that happens to it, in order."""

    def __init__(
        self,
        world: World,
        spec: InstanceSpec,
        probes: Mapping[str, Probes],
        *,
        wanted: float,
        adopted: Instance | None = None,
    ) -> None:
        """
        Args:
            wanted: epoch seconds of the decision that asked for it.
            adopted: the instance, when it runs already.
        """
        self.name, self.revision, self.uid = spec.name, spec.revision, spec.uid
        self.spec = spec
        self.stage: Stage = "starting"
        self.address = adopted.address if adopted else ""
        self.created = adopted.created if adopted else wanted
        self.failure: Failure | None = None
        self.restarts = 0
        self.instance = adopted
        self._world, self._probes, self._wanted = world, probes, wanted
        self._scheduled = self._started = 0.0
        self._timing: StartTiming | None = None
        self._adopted = adopted
        self._deaths: asyncio.Queue[ContainerDied | None] = asyncio.Queue()
        self._leave = asyncio.Event()
        self._grace: float | None = None
        self._task: asyncio.Task[None] | None = None

    # For its scaler

    def begin(self) -> None:
        self._task = asyncio.create_task(self._live(), name=f"instance {self.name}")

    def endpoint(self) -> Endpoint | None:
        """What activators are told; None while it takes no requests."""
        if self.stage not in ("ready", "draining") or not self.address:
            return None
        state: Literal["ready", "draining"] = "draining" if self.stage == "draining" else "ready"
        return Endpoint(self.name, self.address, self.spec.port, state, self._timing)

    def drain(self) -> None:
        """Take it out of service and end it; what is in flight may finish."""
        if self.stage not in ("draining", "gone"):
            served = self.stage in ("ready", "unready")
            self._set("draining")
            if not served:
                self._grace = 0.0
            self._leave.set()

    def died(self, event: ContainerDied | None) -> None:
        """A container ended; None: the whole instance is lost."""
        self._deaths.put_nowait(event)

    async def abandon(self) -> None:
        """Stop looking after it and leave it running."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Its life

    async def _live(self) -> None:
        life = asyncio.create_task(self._serve())
        leaving = asyncio.create_task(self._leave.wait())
        try:
            await asyncio.wait({life, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if life.done() and not life.cancelled() and life.exception():
                life.result()
            if self._leave.is_set() and self._grace is None:
                await self._world.drained(self)
        finally:
            for task in (life, leaving):
                task.cancel()
            await asyncio.gather(life, leaving, return_exceptions=True)
        await self._stop()

    async def _stop(self) -> None:
        while True:
            try:
                await self._world.runtime.stop(self.name, self._grace)
                break
            except RuntimeUnavailableError as error:
                log.warning("instance not stopped yet", instance=self.name, error=str(error))
                await asyncio.sleep(1)
        self._set("gone")

    async def _serve(self) -> None:
        """Start and look after it until it is lost."""
        if self._adopted is None and not await self._start_with_retries():
            return
        while not await self._look_after():
            pass

    async def _start_with_retries(self) -> bool:
        tries = 0
        while True:
            try:
                await self._start()
                return True
            except (ImageError, InstanceStartError, RuntimeUnavailableError, NotFoundError) as error:
                self._failed(failure_of(error, tries))
                log.warning("instance not started", instance=self.name, error=str(error))
            await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
            tries += 1

    async def _start(self) -> None:
        runtime, clock = self._world.runtime, self._world.clock
        for container in (*self.spec.containers, *self.spec.init_containers):
            await runtime.ensure_image(container.image)

        def scheduled(instance: Instance) -> None:
            self._scheduled = clock()
            self.address = instance.address

        self.instance = await runtime.start(self.spec, scheduled=scheduled)
        self.address = self.instance.address
        self._started = clock()

    async def _look_after(self) -> bool:
        """Probe until a container must be started again (False) or the instance is lost (True)."""
        async with Prober(self._world.checker, self._world.runtime, self.name, self.address, self._probes) as prober:
            changes, deaths = prober.changes(), self._deaths
            changed: asyncio.Task[Change] = asyncio.ensure_future(_next(changes))
            death: asyncio.Task[ContainerDied | None] = asyncio.ensure_future(deaths.get())
            try:
                while True:
                    await asyncio.wait({changed, death}, return_when=asyncio.FIRST_COMPLETED)
                    if death.done():
                        event = death.result()
                        if event is None:
                            self._unready()
                            return True
                        await self._ended(event)
                        prober.restarted(event.container)
                        death = asyncio.ensure_future(deaths.get())
                    if changed.done():
                        match changed.result():
                            case Ready():
                                self._became_ready()
                            case Unready(container, message):
                                log.info("instance not ready", instance=self.name, container=container, why=message)
                                self._unready()
                            case RestartWanted(container, message):
                                log.info(
                                    "container to start again", instance=self.name, container=container, why=message
                                )
                                self._unready()
                                await self._restart(container)
                                prober.restarted(container)
                        changed = asyncio.ensure_future(_next(changes))
            finally:
                for task in (changed, death):
                    task.cancel()
                await asyncio.gather(changed, death, return_exceptions=True)

    async def _ended(self, event: ContainerDied) -> None:
        """A container ended by itself: say so, wait as long as is its due, start it again."""
        self._unready()
        words = await self._last_words(event.container)
        reason = "OOMKilled" if event.oom_killed else f"ExitCode{event.exit_code}"
        text = words or ("it used more memory than its limit" if event.oom_killed else "it ended without a word")
        self._failed(Failure("ContainerHealthy", reason, f"{EXIT_PREFIX}{text}"))
        log.info("container ended", instance=self.name, container=event.container, exit_code=event.exit_code)
        await self._restart(event.container)

    async def _restart(self, container: str) -> None:
        while True:
            await asyncio.sleep(pause_before(self.restarts))
            self.restarts += 1
            try:
                await self._world.runtime.restart(self.name, container)
                return
            except NotFoundError:
                self.died(None)
                return
            except (InstanceStartError, RuntimeUnavailableError) as error:
                log.warning("container not started again", instance=self.name, container=container, error=str(error))

    async def _last_words(self, container: str) -> str:
        said = b""
        with contextlib.suppress(KnollError):
            async for chunk in self._world.runtime.logs(self.name, container, tail=20):
                assert isinstance(chunk, LogChunk)
                said = (said + chunk.data)[-WORDS_BYTES:]
        return said.decode(errors="replace").strip()

    def _became_ready(self) -> None:
        now = self._world.clock()
        if self._timing is None and self._adopted is None:
            scheduled = self._scheduled or self._wanted
            self._timing = StartTiming(self._wanted, scheduled, self._started or scheduled, now)
        self.failure = None
        self._set("ready")

    def _unready(self) -> None:
        if self.stage == "ready":
            self._set("unready")

    def _failed(self, failure: Failure) -> None:
        self.failure = failure
        self._world.changed(self)

    def _set(self, stage: Stage) -> None:
        if stage != self.stage and self.stage != "gone" and not (self.stage == "draining" and stage != "gone"):
            self.stage = stage
            self._world.changed(self)

    def serving_before(self) -> None:
        """It was in service when its last keeper ended, and stays so until a probe says otherwise."""
        self.stage = "ready"


def failure_of(error: KnollError, tries: int) -> Failure:
    """A failed start as a condition of its Revision."""
    if isinstance(error, ImageError):
        return Failure("ResourcesAvailable", "ErrImagePull" if not tries else "ImagePullBackOff", str(error))
    if isinstance(error, InstanceStartError):
        code = f"ExitCode{error.exit_code}" if error.exit_code is not None else error.cause
        return Failure("ContainerHealthy", code, f"{EXIT_PREFIX}{error}")
    return Failure("ResourcesAvailable", "RuntimeUnavailable", str(error), final=False)


async def _next(changes: AsyncIterator[Change]) -> Change:
    return await anext(changes)
