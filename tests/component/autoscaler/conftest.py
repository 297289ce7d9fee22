"""An autoscaler on a real Redis and a fake engine, with an activator as the autoscaler sees it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from autoscaler.decision.capacity import Machine
from autoscaler.kubelet.kubelet import NodeOptions
from autoscaler.leader.leader import LeaderOptions, PublishedTables
from autoscaler.node.isolation import Firewall
from autoscaler.probes.checks import Checker
from autoscaler.roles.single_machine import SingleMachine
from knoll.messages.endpoints import ENDPOINTS, Endpoint, RevisionEndpoints
from knoll.messages.instances import INSTANCES, RevisionInstances
from knoll.messages.reports import Poke, Report, RevisionReport
from knoll.messages.scale import SCALE, ScaleStatus
from knoll.redis import keys
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from knoll.tables.protocol import FieldChange, Reset
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from tests.doubles.fake_engine import FakeEngine
from tests.doubles.fake_runtime import FakeRuntime
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

QUICK = {"autoscaling.knative.dev/window": "1s"}
"""Idle after a second."""


class AutoscalerHarness:
    """Redis, the engine, and the autoscaler when it runs."""

    def __init__(self, redis: RedisClient) -> None:
        self.redis = redis
        self.engine = FakeEngine()
        self.machine = Machine()
        """The machine setting of the next autoscaler."""
        self.firewall: Firewall | None = None
        """Of the next autoscaler."""
        self.measure_seconds = 15.0
        """How often the next autoscaler measures what instances use."""
        self.quiet_seconds = 30.0
        """How long the next autoscaler waits for WebSockets."""
        self.armed_instances = 0
        """How many instances the next autoscaler arms."""
        self.available_bytes = 8 * 1024**3
        """Of the machine's memory."""
        self.store = RedisStore(redis)
        self.endpoints: RedisTable[RevisionEndpoints] = RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        self.scale: RedisTable[ScaleStatus] = RedisTable(redis, SCALE, ScaleStatus)
        self.instances: RedisTable[RevisionInstances] = RedisTable(redis, INSTANCES, RevisionInstances)
        self._running: asyncio.Task[None] | None = None
        self.autoscaler: SingleMachine | None = None

    async def start(self) -> None:
        """Run an autoscaler that leads."""
        began = asyncio.Event()

        async def run() -> None:
            async with FakeRuntime(self.engine) as runtime, Checker() as checker:
                node = NodeOptions(
                    firewall=self.firewall,
                    machine=self.machine,
                    disk_seconds=0.1,
                    armed_instances=self.armed_instances,
                    memory=lambda: (16 * 1024**3, self.available_bytes),
                )
                leader = LeaderOptions(
                    machine=self.machine,
                    tick_seconds=0.1,
                    measure_seconds=self.measure_seconds,
                    quiet_seconds=self.quiet_seconds,
                )
                tables = PublishedTables(self.endpoints, self.scale, self.instances)
                self.autoscaler = SingleMachine(runtime, checker, self.store, self.redis, tables, (node, leader))
                began.set()
                await self.autoscaler.run()

        self._running = asyncio.create_task(run())
        await began.wait()

        async def listens() -> bool:
            assert self._running is not None
            if self._running.done():
                self._running.result()
            return await self._subscribed()

        await eventually(listens, condition="the autoscaler listens")

    async def stop(self) -> None:
        """As when the process ends: instances keep running."""
        if self._running:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

            async def left() -> bool:
                return not await self._subscribed()

            await eventually(left, condition="the autoscaler no longer listens")

    async def _subscribed(self) -> bool:
        subscribers = await self.redis.execute("PUBSUB", "NUMSUB", keys.POKES)
        return int(subscribers[1]) > 0

    async def apply(self, name: str = "hello-00001", **more: Any) -> str:
        """Create a Revision whose images are resolved; returns `namespace/name`."""
        await self.store.create(kinds.REVISION.id, body(name, **more))
        return f"default/{name}"

    async def published(self, key: str) -> tuple[Endpoint, ...]:
        _, entries = await self.endpoints.snapshot()
        return entries[key][1].endpoints if key in entries else ()

    async def ready(self, key: str, count: int = 1) -> tuple[Endpoint, ...]:
        """Wait until exactly this many endpoints are published, all ready."""

        async def are() -> tuple[Endpoint, ...]:
            endpoints = await self.published(key)
            assert [endpoint.state for endpoint in endpoints] == ["ready"] * count, endpoints
            return endpoints or (Endpoint("", "", 0),)

        endpoints = await eventually(are, condition=f"{count} ready endpoints")
        return endpoints if count else ()

    async def status(self, key: str) -> ScaleStatus | None:
        _, entries = await self.scale.snapshot()
        return entries[key][1] if key in entries else None

    async def has_status(self, key: str, **expected: Any) -> ScaleStatus:
        """Wait until the scale table has these values for a Revision."""

        async def does() -> ScaleStatus:
            status = await self.status(key)
            assert status is not None
            assert {name: getattr(status, name) for name in expected} == expected
            return status

        return await eventually(does, condition=f"status {expected}")

    async def gone(self) -> None:
        """Wait until no instance is left."""
        await eventually(lambda: not self.engine.instances, condition="no instance")

    async def poke(self, key: str, waiting: int = 1) -> None:
        poke = Poke("activator-1", key, time.time(), waiting)
        await self.redis.execute("PUBLISH", keys.POKES, msgspec.json.encode(poke))

    async def report(
        self,
        key: str,
        concurrency: float,
        draining: dict[str, int] | None = None,
        held: dict[str, int] | None = None,
        tunnels: dict[str, int] | None = None,
    ) -> None:
        """Publish one activator's report of a second."""
        count = round(concurrency)
        row = RevisionReport(key, concurrency, count, count, 0, held or {})
        report = Report("activator-1", time.time(), 1.0, (row,) if concurrency else (), draining or {}, tunnels or {})
        await self.redis.execute("PUBLISH", keys.REPORTS, msgspec.json.encode(report))


class Activator:
    """Follows the endpoints as an activator does; acknowledges while `follows` is set."""

    def __init__(self, harness: AutoscalerHarness) -> None:
        self.harness = harness
        self.follows = asyncio.Event()
        self.follows.set()
        self.in_flight: dict[str, int] = {}
        self.tunnels: dict[str, int] = {}
        self.entries: dict[str, RevisionEndpoints] = {}
        self._version = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._say())

    async def _follow(self) -> None:
        async for event in self.harness.endpoints.follow():
            await self.follows.wait()
            match event:
                case Reset():
                    self.entries = dict(event.entries)
                case FieldChange(field=field, value=None):
                    self.entries.pop(field, None)
                case FieldChange(field=field, value=RevisionEndpoints() as value):
                    self.entries[field] = value
            self._version = event.version
            await self.harness.endpoints.acknowledge("activator-1", self._version)

    async def _say(self) -> None:
        while True:
            await self.harness.endpoints.acknowledge("activator-1", self._version)
            draining = [
                endpoint
                for entry in self.entries.values()
                for endpoint in entry.endpoints
                if endpoint.state == "draining"
            ]
            if draining:
                left = {endpoint.id: self.in_flight.get(endpoint.id, 0) for endpoint in draining}
                await self.harness.report("", 0.0, left, tunnels=self.tunnels)
            await asyncio.sleep(0.05)


@pytest.fixture
async def harness(redis_url: str) -> AsyncIterator[AutoscalerHarness]:
    async with connected(redis_url, "autoscaler-test") as redis:
        harness = AutoscalerHarness(redis)
        try:
            yield harness
        finally:
            await harness.stop()
            await FakeRuntime(harness.engine).destroy()
            await harness.store.close()


@pytest.fixture
async def activator(harness: AutoscalerHarness) -> AsyncIterator[Activator]:
    activator = Activator(harness)
    running = asyncio.create_task(activator.run())
    try:
        yield activator
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
