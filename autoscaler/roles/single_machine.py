"""Both roles in one process, for a platform on a single machine."""

import asyncio
from collections.abc import Mapping
from functools import partial

from autoscaler.decision.capacity import Reservations
from autoscaler.instances.deps import InstanceDeps
from autoscaler.kubelet.armed_pool import ArmedPool
from autoscaler.kubelet.kubelet import Kubelet, NodeOptions
from autoscaler.leader.leader import Leader, LeaderOptions, PublishedTables
from autoscaler.leader.nodes import Nodes
from autoscaler.leader.registry import RevisionRegistry
from autoscaler.link.memory import MemoryLink
from autoscaler.node.isolation import Isolation
from autoscaler.placement.single import SinglePlacer
from autoscaler.probes.checks import Checker
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.roles.published import last_published
from autoscaler.runtime.protocol import Runtime
from knoll.redis.client import RedisClient
from knoll.store.protocol import Store


class SingleMachine:
    """Leader and node, which both run while this process holds the lease."""

    def __init__(
        self,
        runtime: Runtime,
        checker: Checker,
        store: Store,
        redis: RedisClient,
        tables: PublishedTables,
        options: tuple[NodeOptions, LeaderOptions],
    ) -> None:
        node_options, leader_options = options
        self._tables = tables
        self.kubelet = Kubelet(runtime, checker, store, redis, node_options)
        nodes = Nodes(
            MemoryLink(self.kubelet), SinglePlacer(self.reservations, self.kubelet.name), self.kubelet.memory_bytes
        )
        self.leader = Leader(nodes, self.kubelet.followed, store, redis, tables, leader_options)

    async def run(self) -> None:
        """Run until cancelled; instances keep running."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.kubelet.run(partial(last_published, self._tables)))
            await self.kubelet.adopted.wait()
            tasks.create_task(self.leader.run())

    # Read by the admin port and by tests

    @property
    def registry(self) -> RevisionRegistry:
        return self.leader.registry

    @property
    def scalers(self) -> Mapping[str, RevisionScaler]:
        """By uid."""
        return self.leader.registry.by_uid

    @property
    def reservations(self) -> Reservations:
        """Reservations of the machine."""
        return self.kubelet.reservations

    @property
    def armed(self) -> ArmedPool:
        return self.kubelet.armed

    @property
    def deps(self) -> InstanceDeps:
        """Services that instances share."""
        return self.kubelet.deps

    @property
    def isolation(self) -> Isolation:
        return self.kubelet.isolation
