"""Keeping a running instance in service: follows its probes, its containers and its serving port."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

import structlog

from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.events import InstanceEvents
from autoscaler.instances.restart import InstanceContainers
from autoscaler.instances.serving_port import ServingPort
from autoscaler.probes.prober import Failing, Prober, Ready, RestartNeeded, Unready
from autoscaler.probes.spec import ExecCheck, Probes
from autoscaler.runtime.model import ContainerDied, InstanceSpec
from knoll.messages.scale import StartFailure

log = structlog.get_logger()

NEVER_READY_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL of a container that is restarted before any probe of it succeeded. It has no
requests, and a program that has not come up may not have installed a handler yet, without which SIGTERM has no effect
on the first process of a container."""


class Observer(Protocol):
    """Receives the events of the instance."""

    def became_ready(self) -> None: ...
    def became_unready(self) -> None: ...
    def probe_failed(self, message: str) -> None: ...
    def set_failure(self, failure: StartFailure | None) -> None: ...
    def notify(self) -> None: ...
    def sandbox_lost(self) -> None: ...


class Upkeep:
    """One instance, while it runs."""

    def __init__(
        self,
        deps: InstanceDeps,
        spec: InstanceSpec,
        probes: Mapping[str, Probes],
        containers: InstanceContainers,
        events: InstanceEvents,
        observer: Observer,
    ) -> None:
        self._deps, self._spec, self._probes = deps, spec, probes
        self._containers, self._events, self._observer = containers, events, observer
        self._serving = spec.serving or spec.containers[0].name
        self._port = ServingPort(deps.runtime, spec.name, spec.port, on_hint=self._hinted)
        self._port_watch: asyncio.Task[None] | None = None
        """Looks at the serving port until it is reached."""
        self._hint = self._message = ""
        self._address = ""
        self._prober: Prober | None = None

    @property
    def ready(self) -> bool:
        """Whether its probes have passed since `run` began."""
        return self._prober is not None and self._prober.ready

    async def run(self, address: str) -> None:
        """Probe the instance and restart its containers, forever.

        Args: address: the instance's IP address.
        """
        self._address, runtime = address, self._deps.runtime
        async with Prober(self._deps.checker, runtime, self._spec.name, address, self._probes) as prober:
            self._prober = prober
            async with asyncio.TaskGroup() as tasks:
                self._watch_port(tasks)
                tasks.create_task(self._follow_probes(prober, tasks))
                tasks.create_task(self._follow_deaths(prober, tasks))

    async def _follow_probes(self, prober: Prober, tasks: asyncio.TaskGroup) -> None:
        async for change in prober.changes():
            match change:
                case Ready() if not self._containers.down:
                    self._port_reached()
                    self._observer.became_ready()
                case Unready(container, message):
                    log.info("instance not ready", instance=self._spec.name, container=container, reason=message)
                    self._observer.became_unready()
                case Failing(container, message, _, refused):
                    self._unhealthy(message)
                    if refused and container == self._serving:
                        self._watch_port(tasks)
                case RestartNeeded(container, message, kind) if container not in self._containers.down:
                    log.info(
                        "container restart required", instance=self._spec.name, container=container, reason=message
                    )
                    self._events.killing(container, kind)
                    tasks.create_task(self._stop_and_restart(container, prober, tasks))
                case _:
                    pass

    async def _follow_deaths(self, prober: Prober, tasks: asyncio.TaskGroup) -> None:
        while True:
            event = await self._containers.death()
            prober.stopped(event.container)
            tasks.create_task(self._restart(event.container, event, prober, tasks))

    # Restarting a container

    async def _stop_and_restart(self, container: str, prober: Prober, tasks: asyncio.TaskGroup) -> None:
        """Restart a container that failed its startup or liveness probe."""
        grace = None if prober.passed(container) else min(NEVER_READY_GRACE, self._spec.grace_seconds)
        prober.stopped(container)
        self._observer.became_unready()
        self._containers.stopping(container)
        self._observer.notify()
        if await self._containers.stop(container, grace):
            await self._restart(container, None, prober, tasks)
        else:
            self._observer.sandbox_lost()

    async def _restart(
        self, container: str, death: ContainerDied | None, prober: Prober, tasks: asyncio.TaskGroup
    ) -> None:
        """Restart a container that has ended; it is not probed until it runs again."""
        self._observer.became_unready()
        if container == self._serving:
            self._end_port_watch()
            await self._port.close()
        if not await self._containers.restart(container, death, self._observer.set_failure, self._observer.notify):
            self._observer.sandbox_lost()
            return
        self._observer.notify()
        prober.restarted(container)
        if container == self._serving:
            self._watch_port(tasks)

    # Reporting why it is not ready

    def _unhealthy(self, message: str) -> None:
        self._message = message
        if self._events.unhealthy(message):
            self._observer.probe_failed(self._explanation())

    def _hinted(self, hint: str) -> None:
        self._hint = hint
        if hint and self._events.unhealthy(hint):
            self._observer.probe_failed(self._explanation())

    def _explanation(self) -> str:
        if self._hint and self._message:
            return f"{self._hint} ({self._message})"
        return self._hint or self._message

    # The serving port

    def _watch_port(self, tasks: asyncio.TaskGroup) -> None:
        if self._port_watch is None or self._port_watch.done():
            self._port_watch = tasks.create_task(self._until_port_reached())

    async def _until_port_reached(self) -> None:
        await self._port.watch(self._address, loopback_before=self._spec.uid in self._deps.loopback_revisions)
        self._hint = ""
        if self._port.forwarded:
            self._deps.loopback_revisions.add(self._spec.uid)

    def _end_port_watch(self) -> None:
        if self._port_watch is not None:
            self._port_watch.cancel()
            self._port_watch = None

    def _port_reached(self) -> None:
        """The instance is ready, so its port is reached, unless the readiness probe does not use the port."""
        self._hint = self._message = ""
        probe = self._probes[self._serving].readiness
        if probe is not None and not isinstance(probe.check, ExecCheck) and probe.check.port == self._spec.port:
            self._end_port_watch()
            if self._port.forwarded:
                self._deps.loopback_revisions.add(self._spec.uid)
