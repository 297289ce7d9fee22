"""Keeping an instance that runs in service: follows its probes, its containers and its serving port."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

import structlog

from autoscaler.instances.containers import Containers
from autoscaler.instances.deps import World
from autoscaler.instances.events import InstanceEvents
from autoscaler.instances.serving_port import ServingPort
from autoscaler.probes.prober import Failing, Prober, Ready, RestartWanted, Unready
from autoscaler.probes.spec import ExecCheck, Probes
from autoscaler.runtime.protocol import ContainerDied, InstanceSpec
from knoll.messages.scale import StartFailure

log = structlog.get_logger()

NEVER_READY_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL of a container that has to start again and answered no probe yet: no request is in
it, and a program that has not come up may not have installed a handler, without which SIGTERM has no effect on the
first process of a container."""


class Owner(Protocol):
    """What an upkeep tells of its instance."""

    def became_ready(self) -> None: ...
    def became_unready(self) -> None: ...
    def failing(self, message: str) -> None: ...
    def failed(self, failure: StartFailure | None) -> None: ...
    def changed(self) -> None: ...
    def lose(self) -> None: ...


class Upkeep:
    """One instance, while it runs."""

    def __init__(
        self,
        world: World,
        spec: InstanceSpec,
        probes: Mapping[str, Probes],
        containers: Containers,
        events: InstanceEvents,
        owner: Owner,
    ) -> None:
        self._world, self._spec, self._probes = world, spec, probes
        self._containers, self._events, self._owner = containers, events, owner
        self._serving = spec.serving or spec.containers[0].name
        self._port = ServingPort(world.runtime, spec.name, spec.port, hinted=self._hinted)
        self._watch: asyncio.Task[None] | None = None
        """Looks at the serving port, until it is reached."""
        self._hint = self._message = ""
        self._address = ""
        self._prober: Prober | None = None

    @property
    def ready(self) -> bool:
        """Its probes say so, since `run` began."""
        return self._prober is not None and self._prober.ready

    async def run(self, address: str) -> None:
        """Probe it, and start its containers again, for ever.

        Args: address: the instance's IP address.
        """
        self._address, runtime = address, self._world.runtime
        async with Prober(self._world.checker, runtime, self._spec.name, address, self._probes) as prober:
            self._prober = prober
            async with asyncio.TaskGroup() as tasks:
                self._watch_port(tasks)
                tasks.create_task(self._follow_probes(prober, tasks))
                tasks.create_task(self._follow_deaths(prober, tasks))

    async def _follow_probes(self, prober: Prober, tasks: asyncio.TaskGroup) -> None:
        async for change in prober.changes():
            match change:
                case Ready() if not self._containers.down:
                    self._reached()
                    self._owner.became_ready()
                case Unready(container, message):
                    log.info("instance not ready", instance=self._spec.name, container=container, why=message)
                    self._owner.became_unready()
                case Failing(container, message, _, refused):
                    self._unhealthy(message)
                    if refused and container == self._serving:
                        self._watch_port(tasks)
                case RestartWanted(container, message, kind) if container not in self._containers.down:
                    log.info("container to start again", instance=self._spec.name, container=container, why=message)
                    self._events.killing(container, kind)
                    tasks.create_task(self._restart(container, prober, tasks))
                case _:
                    pass

    async def _follow_deaths(self, prober: Prober, tasks: asyncio.TaskGroup) -> None:
        while True:
            event = await self._containers.death()
            prober.stopped(event.container)
            tasks.create_task(self._mend(event.container, event, prober, tasks))

    # Starting a container again

    async def _restart(self, container: str, prober: Prober, tasks: asyncio.TaskGroup) -> None:
        """End a container that failed its startup or liveness probe, and start it again."""
        grace = None if prober.passed(container) else min(NEVER_READY_GRACE, self._spec.grace_seconds)
        prober.stopped(container)
        self._owner.became_unready()
        self._containers.stopping(container)
        self._owner.changed()
        if await self._containers.end(container, grace):
            await self._mend(container, None, prober, tasks)
        else:
            self._owner.lose()

    async def _mend(
        self, container: str, death: ContainerDied | None, prober: Prober, tasks: asyncio.TaskGroup
    ) -> None:
        """Start a container again; nothing is asked of it until then."""
        self._owner.became_unready()
        if container == self._serving:
            self._end_watch()
            await self._port.close()
        if not await self._containers.mend(container, death, self._owner.failed, self._owner.changed):
            self._owner.lose()
            return
        self._owner.changed()
        prober.restarted(container)
        if container == self._serving:
            self._watch_port(tasks)

    # What is said of it

    def _unhealthy(self, message: str) -> None:
        self._message = message
        if self._events.unhealthy(message):
            self._owner.failing(self._text())

    def _hinted(self, hint: str) -> None:
        self._hint = hint
        if hint and self._events.unhealthy(hint):
            self._owner.failing(self._text())

    def _text(self) -> str:
        if self._hint and self._message:
            return f"{self._hint} ({self._message})"
        return self._hint or self._message

    # Its serving port

    def _watch_port(self, tasks: asyncio.TaskGroup) -> None:
        if self._watch is None or self._watch.done():
            self._watch = tasks.create_task(self._watched())

    async def _watched(self) -> None:
        await self._port.watch(self._address, loopback_before=self._spec.uid in self._world.on_loopback)
        self._hint = ""
        if self._port.forwarded:
            self._world.on_loopback.add(self._spec.uid)

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _reached(self) -> None:
        """It is ready: that its port is reached needs no look any more, unless a command alone said so."""
        self._hint = self._message = ""
        probe = self._probes[self._serving].readiness
        if probe is not None and not isinstance(probe.check, ExecCheck) and probe.check.port == self._spec.port:
            self._end_watch()
            if self._port.forwarded:
                self._world.on_loopback.add(self._spec.uid)
