"""Processes of `bench.many_nodes`: `python -m bench.lib.simulated_nodes ROLE URL FIRST COUNT`, until SIGTERM.

ROLE is one of
- `leader`: an autoscaler process that leads,
- `nodes`: autoscaler processes that do not, with instances that need no engine,
- `activators`: what activators do with tables: follow routes and endpoints, and acknowledge them,
- `reports`: activators' reports of requests for the Revisions in the environment variable REPORTED.
Each simulated process of the COUNT ones has Redis connections of its own.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import uvloop

from activator.sync.reporter import until_next
from activator.sync.table_followers import TableFollower
from autoscaler.decision.capacity import ResourceRequest
from autoscaler.kubelet.kubelet import Kubelet, NodeOptions
from autoscaler.leader.leader import LeaderOptions
from autoscaler.leader.node_watch import NodeWatch
from autoscaler.placement.protocol import ANYWHERE, Constraints, OnBound, OnProblem
from autoscaler.probes.checks import Checker
from autoscaler.roles.cluster_node import LEASE_SECONDS, ClusterNode, MachineAddress
from autoscaler.runtime.model import Capacity
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.reports import Report, RevisionReport
from knoll.messages.routing import ROUTING, RouteEntry
from knoll.process import logs
from knoll.redis import keys
from knoll.redis.client import connected
from knoll.redis.lease import Lease
from knoll.redis.streams import CONTROL_GATHER_SECONDS
from knoll.store.redis_store import FEW_BUFFERED_EVENTS, RedisStore
from knoll.tables.redis_tables import RedisTable
from tests.doubles.fake_engine import FakeEngine
from tests.doubles.fake_runtime import FakeRuntime

PERIOD = 1.0
"""Seconds between two reports of an activator."""
START_SECONDS = 0.2
"""What starting an instance takes in the fake engine."""
CAPACITY = Capacity(64.0, 1 << 40)


class SpreadPlacer:
    """See `Placer`: binds at once, to the node with the fewest instances; Docker Swarm is not simulated."""

    def __init__(self, watch: NodeWatch, own: str) -> None:
        self._watch, self._own = watch, own
        self._bound: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def begin(self, on_bound: OnBound, on_problem: OnProblem) -> None:
        self._on_bound = on_bound

    def restore(self, instance: str, node: str, request: ResourceRequest) -> None:
        self._bind(instance, node)

    def place(self, instance: str, request: ResourceRequest, constraints: Constraints = ANYWHERE) -> None:
        if instance not in self._bound:
            others = [node for node in self._watch.alive() if node != self._own]
            node = constraints.node or min(others, key=lambda each: (self._counts.get(each, 0), random.random()))
            self._bind(instance, node)
            self._on_bound(instance, node)

    def withdraw(self, instance: str) -> None:
        if instance in self._bound:
            self._counts[self._bound.pop(instance)] -= 1

    def problem(self, instance: str) -> str:
        return ""

    async def run(self) -> None:
        await asyncio.Event().wait()

    def _bind(self, instance: str, node: str) -> None:
        self._bound[instance] = node
        self._counts[node] = self._counts.get(node, 0) + 1


def _placer(kubelet: Kubelet, watch: NodeWatch) -> SpreadPlacer:
    return SpreadPlacer(watch, kubelet.name)


async def process_of(url: str, number: int, *, leads: bool) -> None:
    """Run the autoscaler process of one machine. Args: number: of the node, from 0."""
    name = f"n{number}"
    engine = FakeEngine(capacity=CAPACITY)
    engine.start_seconds = START_SECONDS
    async with (
        connected(url, name, gather_seconds=CONTROL_GATHER_SECONDS) as redis,
        FakeRuntime(engine) as runtime,
        Checker() as checker,
    ):
        store = RedisStore(redis, ring=FEW_BUFFERED_EVENTS)
        options = NodeOptions(name=name), LeaderOptions()
        address = MachineAddress(f"10.{number // 250}.{number % 250}.1", 7444, 7443, f"id-{name}")
        node = ClusterNode(runtime, checker, store, redis, options, _placer, address)
        try:
            await node.run(Lease(redis, "autoscaler", name, ttl=LEASE_SECONDS) if leads else None)
        finally:
            await store.close()


async def activator_of(url: str, number: int) -> None:
    """Follow the tables of an activator."""
    name = f"activator-n{number}"
    async with connected(url, name) as redis, asyncio.TaskGroup() as tasks:
        routing, endpoints = RedisTable(redis, ROUTING, RouteEntry), RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        for table in (routing, endpoints):
            tasks.create_task(TableFollower(table, name, lambda _: None, lambda *_: None).run())


async def reports_of(url: str, number: int, revisions: tuple[RevisionReport, ...]) -> None:
    """Report requests, as an activator does each period."""
    async with connected(url, f"reports-n{number}") as redis:
        while True:
            await asyncio.sleep(until_next(time.time(), PERIOD))
            report = Report(f"activator-n{number}", time.time(), PERIOD, revisions)
            await redis.execute("PUBLISH", keys.REPORTS, msgspec.json.encode(report))


def task_of(role: str, url: str, number: int) -> Coroutine[Any, Any, None]:
    match role:
        case "leader" | "nodes":
            return process_of(url, number, leads=role == "leader")
        case "activators":
            return activator_of(url, number)
        case "reports":
            revisions = os.environ["REPORTED"].split()
            return reports_of(url, number, tuple(RevisionReport(each, 0.5, 20, 1, 0) for each in revisions))
        case _:
            sys.exit(f"unknown role {role!r}")


async def run(role: str, url: str, numbers: range) -> None:
    running = [asyncio.create_task(task_of(role, url, number)) for number in numbers]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    waiting: asyncio.Task[Any] = asyncio.create_task(stopped.wait())
    done, _ = await asyncio.wait({waiting, *running}, return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for task in done - {waiting}:
        task.result()


def main() -> None:
    role, url, first, count = sys.argv[1:]
    logs.set_up("warning", "console", "autoscaler")
    uvloop.run(run(role, url, range(int(first), int(first) + int(count))))


if __name__ == "__main__":
    main()
