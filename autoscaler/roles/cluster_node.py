"""One machine of several: the node role runs as long as the process, the leader role while it holds the lease."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from autoscaler.kubelet.adoption import LastPublished
from autoscaler.kubelet.kubelet import Kubelet, NodeOptions
from autoscaler.kubelet.node_tables import NodeTables
from autoscaler.kubelet.registration import NodeProcess, NodeRegistration
from autoscaler.leader.claim_nodes import ClaimNodes
from autoscaler.leader.leader import Leader, LeaderOptions, PublishedTables
from autoscaler.leader.node_watch import NodeWatch
from autoscaler.leader.nodes import Nodes
from autoscaler.link.cluster import ClusterLink
from autoscaler.link.memory import MemoryLink
from autoscaler.link.tables import LinkTables, TableLink
from autoscaler.placement.protocol import Placer
from autoscaler.probes.checks import Checker
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.roles.duty import take_over
from autoscaler.roles.published import last_published
from autoscaler.runtime.protocol import Runtime
from knoll import __version__
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.nodes import NODES, Node
from knoll.redis.client import RedisClient
from knoll.redis.heartbeats import Heartbeats
from knoll.redis.lease import Lease
from knoll.store.protocol import Store
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.node import CONTROL_PLANE

log = structlog.get_logger()

LEASE_SECONDS = 3.0
"""A leader that is lost with its machine is replaced after this time. It is short: until then the endpoints of that
machine stay published."""


@dataclass(frozen=True, slots=True)
class MachineAddress:
    """Where the other machines reach this one."""

    address: str = ""
    relay_port: int = 0
    admin_port: int = 0
    host: str = field(default_factory=socket.gethostname)
    """Host name of this process."""


class SwarmRole(Protocol):
    """The machine in Docker Swarm; see `SwarmMember`."""

    id: str

    @property
    def may_place(self) -> bool: ...

    async def until(self, condition: Callable[[], bool]) -> None: ...


class NoSwarm:
    """A machine that is in no Swarm."""

    id = ""
    may_place = True

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait forever, unless the condition holds: nothing changes."""
        if not condition():
            await asyncio.Event().wait()


class ClusterNode:
    """Both roles of one process on a platform of several machines."""

    def __init__(
        self,
        runtime: Runtime,
        checker: Checker,
        store: Store,
        redis: RedisClient,
        options: tuple[NodeOptions, LeaderOptions],
        make_placer: Callable[[Kubelet, NodeWatch], Placer],
        address: MachineAddress,
        swarm: SwarmRole | None = None,
    ) -> None:
        """
        Args:
            make_placer: called each time that this process starts to lead.
            swarm: this machine in Docker Swarm; None if it is in none.

        Two parameters more than the style allows: it connects all parts of a process.
        """
        self._store, self._redis, self._make_placer = store, redis, make_placer
        node_options, self._leader_options = options
        self.kubelet = Kubelet(runtime, checker, store, redis, node_options)
        self.address, self._swarm = address, swarm or NoSwarm()
        self._tables, self._link_tables = PublishedTables.of(redis), LinkTables.of(redis)
        self._heartbeats = Heartbeats(redis, NODES)
        self._nodes = RedisTable(redis, NODES, Node)
        self._node_tables = NodeTables(self.kubelet, self._link_tables, node_options.clock)
        self._process = NodeProcess(node_options.name, address.host, address.address)
        self._registration = NodeRegistration(self._heartbeats, self._nodes, self._entry, self._process)
        self._started = node_options.clock()
        self.leader: Leader | None = None
        """None while another process leads."""
        self._may_lead = False

    @property
    def scalers(self) -> Mapping[str, RevisionScaler]:
        """By uid; empty while another process leads."""
        return self.leader.registry.by_uid if self.leader else {}

    @property
    def problem(self) -> str:
        """Why instances cannot be started here; empty when they can."""
        return self._registration.problem or self.kubelet.isolation.problem

    async def run(self, lease: Lease | None) -> None:
        """Run until cancelled; instances keep running.

        Args:
            lease: None for a machine that never leads.
        """
        self._may_lead = lease is not None
        await self._registration.claim()
        await take_over(self.kubelet.runtime)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.kubelet.run(self._last_published))
            await self.kubelet.adopted.wait()
            tasks.create_task(self._node_tables.run())
            await self._node_tables.compared.wait()
            tasks.create_task(self._registration.run())
            await self._registration.admitted.wait()
            if lease is not None:
                tasks.create_task(self._contend(lease))

    async def _contend(self, lease: Lease) -> None:
        """Try to lead while the machine may place instances, and only with the same membership in the Swarm."""
        while True:
            await self._swarm.until(lambda: self._swarm.may_place)
            member_id = self._swarm.id
            leading = asyncio.ensure_future(lease.lead(self._lead))
            changed = asyncio.ensure_future(
                self._swarm.until(lambda at=member_id: not self._swarm.may_place or self._swarm.id != at)  # type: ignore[misc]
            )
            try:
                await asyncio.wait({leading, changed}, return_when=asyncio.FIRST_COMPLETED)
                if leading.done():
                    return await leading
                log.warning("machine may not place instances any more, or in another swarm: leadership given up")
            finally:
                for task in (leading, changed):
                    task.cancel()
                await asyncio.gather(leading, changed, return_exceptions=True)

    async def _lead(self) -> None:
        activators = RedisTable(self._redis, ENDPOINTS, RevisionEndpoints).follower_ages
        watch = NodeWatch(self._heartbeats, self._nodes, activators, self.kubelet.name, self._registration.is_steady)
        leader: Leader | None = None

        def schedulable() -> list[str]:
            excluded = leader.node_follower.excluded if leader else frozenset[str]()
            return [node for node in watch.alive() if node not in excluded]

        own = self.kubelet.name
        link = ClusterLink(
            own, MemoryLink(self.kubelet), TableLink(self._link_tables, watch.responds, own), schedulable
        )
        claims = ClaimNodes(self._link_tables.claims, self.kubelet.followed.sources[kinds.VOLUME_CLAIM.id].uid)
        placer = self._make_placer(self.kubelet, watch)
        nodes = Nodes(link, placer, watch.memory_bytes, own, watch.responds, watch, claims)
        leader = self.leader = Leader(
            nodes, self.kubelet.followed, self._store, self._redis, self._tables, self._leader_options
        )
        try:
            await leader.run()
        finally:
            self.leader = None

    async def _last_published(self) -> LastPublished:
        """Return the reports of this node, and what the leader published about instances that are not in them.

        There are such instances where this machine was the only one before.
        """
        before, own = await last_published(self._tables), await self._node_tables.last_published()
        return LastPublished({**before.endpoints, **own.endpoints}, {**before.rows, **own.rows})

    def _entry(self) -> Node:
        capacity = self.kubelet.reservations.capacity
        assert capacity is not None, "the entry is written once the machine is known"
        return Node(
            name=self.kubelet.name,
            address=self.address.address,
            relay_port=self.address.relay_port,
            admin_port=self.address.admin_port,
            cores=capacity.cores,
            memory_bytes=capacity.memory_bytes,
            version=f"v{__version__}",
            engine_id=self._swarm.id,
            labels={CONTROL_PLANE: ""} if self._may_lead and self._swarm.may_place else {},
            started=self._started,
            process=self.address.host,
        )
