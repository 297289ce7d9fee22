"""Several machines, each with an autoscaler process and an engine of its own, on one real Redis.

A machine reaches Redis through a connection that can be cut. A process that is killed writes nothing more: its
connection is cut first.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from activator.sync.table_followers import TableFollower
from autoscaler.kubelet.kubelet import Kubelet, NodeOptions
from autoscaler.leader.leader import LeaderOptions
from autoscaler.leader.node_watch import NodeWatch
from autoscaler.probes.checks import Checker
from autoscaler.roles.cluster_node import ClusterNode, MachineAddress
from knoll.messages.assignments import ASSIGNMENTS, CLAIMS, Assignment, ClaimPlace
from knoll.messages.endpoints import ENDPOINTS, Endpoint, RevisionEndpoints
from knoll.messages.instances import INSTANCES, RevisionInstances
from knoll.messages.members import MEMBERS, Member
from knoll.messages.nodes import NODES, Node, follower_name
from knoll.messages.reports import Poke
from knoll.redis import keys
from knoll.redis.client import RedisClient, connect
from knoll.redis.lease import Lease
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from tests.doubles.fake_engine import FakeEngine
from tests.doubles.fake_runtime import FakeRuntime
from tests.doubles.spread_placer import SpreadPlacer
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

LEASE_SECONDS = 1.0


class Cable:
    """A TCP proxy to Redis that can be cut: no data passes then, and no connection is closed."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._target = parts.hostname or "127.0.0.1", parts.port or 6379
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()

    async def open(self) -> str:
        """Return the URL at which Redis is reached through it."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def close(self) -> None:
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pump(reader, far_writer))
                    tasks.create_task(self._pump(far_reader, writer))
            finally:
                far_writer.close()
        except (asyncio.CancelledError, ExceptionGroup, OSError):
            pass
        finally:
            writer.close()
            self._connections.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


class Role:
    """The role of a machine in a Swarm, which a test changes."""

    def __init__(self) -> None:
        self.id, self.may_place = "", True
        self._changed = asyncio.Event()

    def change(self, id_: str, *, may_place: bool) -> None:
        self.id, self.may_place = id_, may_place
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class Machine:
    """One machine: its engine outlives its process."""

    def __init__(self, name: str, redis_url: str) -> None:
        self.name, self.engine, self.cable = name, FakeEngine(), Cable(redis_url)
        self.host = name
        """Host name of its process."""
        self.node: ClusterNode | None = None
        self.swarm = Role()
        self.armed_instances = 0
        """How many instances the next process arms."""
        self.placer: SpreadPlacer | None = None
        """Of its newest time as the leader."""
        self.running: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        """Its activator's follower of the endpoints."""

    @property
    def leads(self) -> bool:
        return self.node is not None and self.node.leader is not None

    def instances(self) -> list[str]:
        """Names of the instances that run here."""
        return sorted(name for name, each in self.engine.instances.items() if each.state() != "armed")

    async def start(self, *, leads: bool = True) -> None:
        """Run its process. Args: leads: whether it may lead."""
        url = await self.cable.open()
        began = asyncio.Event()

        async def run() -> None:
            redis = connect(url, self.name)
            store = RedisStore(redis)
            try:
                async with FakeRuntime(self.engine) as runtime, Checker() as checker:
                    options = (
                        NodeOptions(
                            name=self.name,
                            armed_instances=self.armed_instances,
                            memory=lambda: (16 * 1024**3, 8 * 1024**3),
                        ),
                        LeaderOptions(tick_seconds=0.1),
                    )
                    address = MachineAddress("10.77.0.1", 8444, 8082, self.host)
                    place = self._new_placer
                    self.node = ClusterNode(runtime, checker, store, redis, options, place, address, self.swarm)
                    began.set()
                    await self.node.run(Lease(redis, "autoscaler", self.name, ttl=LEASE_SECONDS) if leads else None)
            finally:
                self.node = None
                await store.close()
                await redis.aclose()

        self.running = asyncio.create_task(run(), name=f"machine {self.name}")
        await began.wait()

    def serve(self, redis: RedisClient) -> None:
        """Run what an activator does for the leader: it acknowledges the endpoints. A machine has none before."""
        endpoints = RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        follower = TableFollower(endpoints, follower_name(self.name, "1"), lambda _: None, lambda *_: None)
        self._serving = asyncio.create_task(follower.run(), name=f"activator {self.name}")

    async def stop_serving(self) -> None:
        """Stop its activator."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = None

    def _new_placer(self, _: Kubelet, watch: NodeWatch) -> SpreadPlacer:
        self.placer = SpreadPlacer(watch.alive)
        return self.placer

    async def stop(self) -> None:
        """Stop its process in order; instances keep running."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
            self.running = None
        await self.cable.close()

    async def kill(self) -> None:
        """Kill its process; instances keep running."""
        self.cable.cut()
        await self.stop()
        self.cable.mend()

    async def lose_power(self) -> None:
        """End everything on it."""
        await self.stop_serving()
        await self.kill()
        await FakeRuntime(self.engine).destroy()
        self.engine.instances.clear()


class Cluster:
    """All machines of one platform."""

    def __init__(self, redis: RedisClient, redis_url: str, names: tuple[str, ...] = ("n1", "n2", "n3")) -> None:
        self.redis, self.store = redis, RedisStore(redis)
        self.machines = {name: Machine(name, redis_url) for name in names}
        self.endpoints: RedisTable[RevisionEndpoints] = RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        self.rows: RedisTable[RevisionInstances] = RedisTable(redis, INSTANCES, RevisionInstances)
        self.nodes: RedisTable[Node] = RedisTable(redis, NODES, Node)
        self.assignments: RedisTable[Assignment] = RedisTable(redis, ASSIGNMENTS, Assignment)
        self.members: RedisTable[Member] = RedisTable(redis, MEMBERS, Member)
        self.claims: RedisTable[ClaimPlace] = RedisTable(redis, CLAIMS, ClaimPlace)

    async def start(self, *names: str) -> None:
        """Run machines, the first of them as the leader."""
        first, *others = names or self.machines
        await self.machines[first].start()
        await eventually(lambda: self.machines[first].leads, condition=f"{first} leads")
        for name in others:
            await self.machines[name].start()
        await self.registered(first, *others)

    async def registered(self, *names: str) -> None:
        """Wait until exactly these nodes are in the table, and the leader knows them."""

        async def are() -> bool:
            _, entries = await self.nodes.snapshot()
            return sorted(entries) == sorted(names) and sorted(self.alive()) == sorted(names)

        await eventually(are, condition=f"nodes {names}")

    def alive(self) -> list[str]:
        """Nodes that respond, as the leader knows them."""
        leader = self.leader.node
        assert leader is not None
        assert leader.leader is not None
        watch = leader.leader.node_follower.watch
        return watch.alive() if watch is not None else []

    @property
    def leader(self) -> Machine:
        leaders = [machine for machine in self.machines.values() if machine.leads]
        assert len(leaders) == 1, leaders
        return leaders[0]

    async def apply(self, name: str = "hello-00001", **more: Any) -> str:
        """Create a Revision whose images are resolved; returns `namespace/name`."""
        await self.store.create(kinds.REVISION.id, body(name, **more))
        return f"default/{name}"

    async def ready(self, key: str, count: int, *, on: set[str] | None = None) -> tuple[Endpoint, ...]:
        """Wait until exactly this many endpoints are published, all ready, and as many instances run.

        Args:
            on: the machines that run them.
        """

        async def are() -> tuple[Endpoint, ...]:
            _, entries = await self.endpoints.snapshot()
            endpoints = entries[key][1].endpoints if key in entries else ()
            assert [endpoint.state for endpoint in endpoints] == ["ready"] * count, endpoints
            running = {(machine.name, name) for machine in self.machines.values() for name in machine.instances()}
            assert {(each.node, each.id) for each in endpoints} == running
            assert on is None or {each.node for each in endpoints} == on
            return endpoints

        return await eventually(are, within=60, condition=f"{count} ready endpoints")

    async def poke(self, key: str, node: str = "") -> None:
        poke = Poke("activator-1", key, time.time(), 1, node)
        await self.redis.execute("PUBLISH", keys.POKES, msgspec.json.encode(poke))

    async def close(self) -> None:
        for machine in self.machines.values():
            machine.cable.mend()
            await machine.stop_serving()
            await machine.stop()
            await FakeRuntime(machine.engine).destroy()
        await self.store.close()


@contextlib.asynccontextmanager
async def cluster_on(redis_url: str) -> AsyncIterator[Cluster]:
    redis = connect(redis_url, "cluster-test")
    cluster = Cluster(redis, redis_url)
    try:
        yield cluster
    finally:
        await cluster.close()
        await redis.aclose()
