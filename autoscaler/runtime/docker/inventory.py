"""The containers of one platform on the engine, looked up by instance and container name."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from autoscaler.runtime.docker import inspect, labels
from autoscaler.runtime.docker.engine import Engine
from autoscaler.runtime.docker.listing import ListedContainer, PlatformContainers, classify, label_filter, listed
from autoscaler.runtime.model import ContainerState, Instance
from knoll.values.errors import NotFoundError


class Inventory:
    """Asks the engine each time; keeps nothing."""

    def __init__(self, engine: Engine, platform: str, network: str, dns: str, starting: Collection[str]) -> None:
        """
        Args:
            starting: names of the instances that this process is starting; changes.
        """
        self._engine, self._platform, self._network, self._dns = engine, platform, network, dns
        self._starting = starting

    async def containers(self, instance: str | None = None) -> list[ListedContainer]:
        """Return all containers of the platform, or those that carry an instance's label.

        Containers of reservations are left out: Docker Swarm owns them, and the engine proxy refuses calls for them.
        """
        selectors = [f"{labels.PLATFORM}={self._platform}"]
        if instance is not None:
            selectors.append(f"{labels.INSTANCE}={instance}")
        items = await self._engine.get("/containers/json", {"all": 1, "filters": label_filter(*selectors)})
        containers = (listed(item) for item in items)
        return [container for container in containers if container.labels.get(labels.ROLE) != labels.RESERVATION]

    async def classified(self, instance: str | None = None) -> PlatformContainers:
        """Return the containers by what they are."""
        containers = await self.containers(instance)
        return classify(self._platform, self._network, containers, self._starting, self._dns)

    async def app_containers(self, instance: str) -> list[ListedContainer]:
        """Return the containers of an instance, init containers left out.

        Raises:
            NotFoundError: there is no such instance.
        """
        containers = (await self.classified(instance)).by_instance.get(instance, [])
        if not containers:
            raise NotFoundError(f"instance {instance} does not exist")
        return [container for container in containers if container.labels[labels.ROLE] == "app"]

    async def sandbox(self, instance: str) -> tuple[str, str]:
        """Return the engine's id of an instance's sandbox, and its address. Raises: NotFoundError."""
        container = (await self.app_containers(instance))[0]
        return container.labels[labels.SANDBOX], container.labels[labels.ADDRESS]

    async def container(self, instance: str, name: str) -> ListedContainer:
        """Return one container of an instance. Raises: NotFoundError."""
        for container in (await self.classified(instance)).by_instance.get(instance, []):
            if container.labels[labels.CONTAINER] == name:
                return container
        raise NotFoundError(f"container {name} of instance {instance} does not exist")

    async def with_reasons(self, containers: PlatformContainers) -> list[Instance]:
        """Return all instances, with the reasons of the containers that have ended."""
        return list(
            await asyncio.gather(*(self._with_reasons(instance, containers) for instance in containers.instances))
        )

    async def _with_reasons(self, instance: Instance, containers: PlatformContainers) -> Instance:
        """Inspect each container that ended; the list lacks the details."""
        by_name = {
            container.labels[labels.CONTAINER]: container
            for container in reversed(containers.by_instance[instance.name])
        }

        async def with_reason(state: ContainerState) -> ContainerState:
            container = by_name[state.name]
            return (
                state if container.state != "exited" else await inspect.with_reason(self._engine, container.id, state)
            )

        if all(state.running for state in instance.containers):
            return instance
        return replace(instance, containers=tuple([await with_reason(state) for state in instance.containers]))
