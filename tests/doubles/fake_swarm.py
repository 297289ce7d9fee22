"""A Swarm in memory, which schedules as Docker Swarm does where placement needs it. It passes the same tests."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from autoscaler.placement.swarm.client import ServiceExistsError, SwarmError
from autoscaler.placement.swarm.model import SwarmNode, SwarmService, SwarmTask
from autoscaler.placement.swarm.services import LEAST_MEMORY_BYTES, LEAST_NANO_CPUS, NANO
from knoll.values.errors import RuntimeUnavailableError
from knoll.values.json import Json

DECIDE_SECONDS, START_SECONDS = 0.02, 0.03
"""Shorter than Docker's; its first delay is 0.06."""


@dataclass
class FakeService:
    service: SwarmService
    constraints: tuple[str, ...]
    image: str
    task: SwarmTask


@dataclass
class FakeSwarm:
    """See `Swarm`."""

    machines: dict[str, SwarmNode] = field(default_factory=dict)
    """By id."""
    unavailable: str = ""
    """Error of all calls; empty if they succeed."""
    images: set[str] | None = None
    """Images that machines have; None for every image."""
    most_starting: int = 0
    """The highest number of tasks that were starting on one machine."""
    _services: dict[str, FakeService] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    # --- the protocol

    async def nodes(self) -> list[SwarmNode]:
        self._check()
        return list(self.machines.values())

    async def services(self, label: str) -> list[SwarmService]:
        self._check()
        return [each.service for each in self._labelled(label)]

    async def tasks(self, label: str, services: Sequence[str] = ()) -> list[SwarmTask]:
        self._check()
        for each in services:
            if each not in self._services:
                raise SwarmError(f"service {each} not found")
        return [each.task for each in self._labelled(label) if not services or each.service.id in services]

    async def create_service(self, body: Json) -> str:
        self._check()
        if any(each.service.name == body["Name"] for each in self._services.values()):
            raise ServiceExistsError("rpc error: code = AlreadyExists desc = name conflicts with an existing object")
        template = body["TaskTemplate"]
        reserved = template["Resources"]["Reservations"]
        nano_cpus, memory = reserved.get("NanoCPUs", 0), reserved.get("MemoryBytes", 0)
        if 0 < memory < LEAST_MEMORY_BYTES or 0 < nano_cpus < LEAST_NANO_CPUS:
            raise SwarmError("rpc error: code = InvalidArgument desc = invalid memory value: Must be at least 4MiB")
        number = next(self._numbers)
        service = SwarmService(f"{number:025d}", body["Name"], body["Labels"], nano_cpus, memory)
        task = SwarmTask(f"task-{number}", service.id, "", "new", "running")
        fake = FakeService(
            service, tuple(template["Placement"]["Constraints"]), template["ContainerSpec"]["Image"], task
        )
        self._services[service.id] = fake
        self._spawn(service.id)
        return service.id

    async def remove_service(self, service: str) -> None:
        self._check()
        self._services.pop(service, None)
        self._retry()

    # --- called by tests

    def all_services(self) -> list[SwarmService]:
        return [each.service for each in self._services.values()]

    def running(self, machine: str) -> int:
        """Return how many tasks a machine runs."""
        return sum(
            each.task.node == machine and not each.task.ended and each.task.state == "running"
            for each in self._services.values()
        )

    def change(self, machine: str, *, state: str | None = None, availability: str | None = None) -> None:
        """Change a machine, as Swarm sees it: tasks of one that is down, or drained, end."""
        before = self.machines[machine]
        after = replace(before, state=state or before.state, availability=availability or before.availability)
        self.machines[machine] = after
        if after.state == "down" or after.availability == "drain":
            for each in self._services.values():
                if each.task.node == machine and not each.task.ended:
                    each.task = replace(each.task, desired="shutdown")
        self._retry()

    def end(self, service: str) -> None:
        """End the container of a service, as if it had been removed on its machine."""
        fake = self._services[service]
        fake.task = replace(fake.task, state="failed", desired="shutdown", error="task: non-zero exit (137)")

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    # --- the scheduler

    def _check(self) -> None:
        if self.unavailable:
            raise RuntimeUnavailableError(self.unavailable)

    def _labelled(self, label: str) -> list[FakeService]:
        key, _, value = label.partition("=")
        return [each for each in self._services.values() if each.service.labels.get(key) == value]

    def _spawn(self, service: str) -> None:
        task = asyncio.get_running_loop().create_task(self._schedule(service))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _retry(self) -> None:
        for each in list(self._services.values()):
            if each.task.state == "pending":
                self._spawn(each.service.id)

    async def _schedule(self, service: str) -> None:
        await asyncio.sleep(DECIDE_SECONDS)
        fake = self._services.get(service)
        if fake is None or fake.task.node or fake.task.ended:
            return
        fitting = [machine for machine in self.machines.values() if self._fits(machine, fake)]
        if not fitting:
            message = f"no suitable node (insufficient resources on {len(self.machines)} nodes)"
            fake.task = replace(fake.task, state="pending", error=message)
            return
        chosen = min(fitting, key=lambda machine: len(self._on(machine.id))).id
        fake.task = replace(fake.task, state="starting", node=chosen, error="")
        starting = sum(each.task.state == "starting" for each in self._on(chosen))
        self.most_starting = max(self.most_starting, starting)
        await asyncio.sleep(START_SECONDS)
        if fake.task.ended:
            return
        if self.images is not None and fake.image not in self.images:
            fake.task = replace(fake.task, state="rejected", desired="shutdown", error=f"No such image: {fake.image}")
            return
        fake.task = replace(fake.task, state="running")

    def _on(self, machine: str) -> list[FakeService]:
        return [each for each in self._services.values() if each.task.node == machine and not each.task.ended]

    def _fits(self, machine: SwarmNode, fake: FakeService) -> bool:
        for constraint in fake.constraints:
            equal = constraint.startswith("node.id==")
            if (constraint[len("node.id==") :] == machine.id) is not equal:
                return False
        services = [each.service for each in self._on(machine.id)]
        cpus = fake.service.nano_cpus + sum(each.nano_cpus for each in services)
        memory = fake.service.memory_bytes + sum(each.memory_bytes for each in services)
        return machine.takes_tasks and cpus <= machine.cores * NANO and memory <= machine.memory_bytes
