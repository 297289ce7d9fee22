"""Follows the engine: containers that end, sandboxes that are lost, and instances without a scaler."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from autoscaler.instances.instance import ManagedInstance
from autoscaler.instances.transitions import IDLE, LifecycleState
from autoscaler.runtime.model import ContainerDied, Instance, InstanceLost, Resync
from autoscaler.runtime.protocol import Runtime
from knoll.concurrency.backoff import until_available

log = structlog.get_logger()

SWEEP_SECONDS = 15.0


class ArmedWatcher(Protocol):
    """Receives what happens to armed instances."""

    def knows(self, name: str) -> bool:
        """Return whether an instance is armed."""
        ...

    def lost(self, name: str) -> None:
        """It has ended, as a whole or in part."""
        ...

    def compare(self, present: Mapping[str, Instance]) -> None:
        """Events may have been missed. Args: present: what the engine has, by name."""
        ...


class EngineEvents:
    """Passes the engine's events on to the instances that they are about."""

    def __init__(
        self,
        runtime: Runtime,
        instances: Callable[[], Iterable[ManagedInstance]],
        instance: Callable[[str], ManagedInstance | None],
        on_unknown: Callable[[Instance], None],
        armed: ArmedWatcher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            instances: returns all instances that have a scaler.
            instance: returns one of them by its name.
            on_unknown: called with an instance that has none.
            armed: the armed instances, which have no scaler either.
        """
        self._runtime, self._instances, self._instance = runtime, instances, instance
        self._on_unknown, self._armed, self._clock = on_unknown, armed, clock

    async def follow(self) -> None:
        """Pass events on, forever."""
        async for event in self._runtime.events():
            match event:
                case ContainerDied(instance=name) | InstanceLost(instance=name) if self._armed.knows(name):
                    self._armed.lost(name)
                case ContainerDied(instance=name):
                    instance = self._instance(name)
                    if instance:
                        instance.container_died(event)
                case InstanceLost(instance=name):
                    self._lost(name)
                case Resync():
                    await self._resync()

    async def sweep(self) -> None:
        """Look for instances without a scaler, forever: those that an earlier leader started last cause no event."""
        unknown_before: set[str] = set()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            instances = await until_available(self._runtime.instances)
            unknown = [instance for instance in instances if self._instance(instance.name) is None]
            # Only those that are found twice in a row: an instance that is being removed is gone by the next time.
            for instance in unknown:
                if instance.name in unknown_before:
                    self._on_unknown(instance)
            unknown_before = {instance.name for instance in unknown}

    async def _resync(self) -> None:
        """Events may have been missed: compare with what the engine has."""
        expected = [
            instance
            for instance in self._instances()
            if instance.exists and instance.state is not LifecycleState.REMOVED
        ]
        present = {instance.name: instance for instance in await until_available(self._runtime.instances)}
        self._armed.compare(present)
        for managed in expected:
            instance = present.get(managed.name)
            if instance is None or instance.state == "lost":
                self._lost(managed.name)
            elif instance.state == "exited" and managed.state not in IDLE:  # an idle one was stopped by us
                for container in instance.containers:
                    if not container.running:
                        died = ContainerDied(
                            managed.name, managed.revision, container.name, container.exit_code or 0,
                            container.oom_killed, self._clock(),
                        )  # fmt: skip
                        managed.container_died(died)

    def _lost(self, name: str) -> None:
        instance = self._instance(name)
        if instance:
            log.warning("instance lost", instance=name, revision=instance.revision)
            instance.sandbox_lost()
