"""What the control plane costs with 3, 30 and 300 nodes: a real Redis, a real leader, and simulated nodes.

A simulated node is the node role of the autoscaler with a fake engine, and an activator's part of the tables
(`bench.lib.simulated_nodes`); Docker Swarm and requests are not part of it. For each number of nodes: what all cost
while nothing happens, what each instance costs until it is Ready everywhere, how long activators take to acknowledge a
Route, and what reports of requests cost. Processor time and bytes count, not durations: all nodes share this machine.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from autoscaler.link.cluster import CANDIDATES_PER_NODE
from bench.lib.fleet import cpu_seconds, memory_kib
from bench.lib.stopping import stoppable
from knoll.cli.up import redis_command
from knoll.messages.assignments import PREPARATIONS, Preparation, RecentRevision
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.nodes import NODES, Node
from knoll.messages.routing import ROUTING, RouteEntry
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

PER_PROCESS = 100
"""Simulated nodes in one process."""
REVISIONS, EACH = 20, 10
"""Revisions, and instances of each."""
INSTANCES = REVISIONS * EACH
PACE = 1 / 100
"""Seconds between two Revisions for each node: all nodes share this machine, and none may miss its heartbeats."""
IDLE_SECONDS, REPORT_SECONDS = 20.0, 15.0
ROUTES, CHANGES = 10, 20
UP_SECONDS, READY_SECONDS = 300.0, 600.0


@dataclass
class Cost:
    """Processor seconds of each part, and what Redis has sent and done."""

    cpu: dict[str, float]
    sent_bytes: int
    commands: int
    at: float = field(default_factory=time.monotonic)

    def since(self, before: "Cost") -> "Cost":
        """Return the difference; `at` is then a duration."""
        cpu = {name: seconds - before.cpu.get(name, 0.0) for name, seconds in self.cpu.items()}
        sent, commands = self.sent_bytes - before.sent_bytes, self.commands - before.commands
        return Cost(cpu, sent, commands, self.at - before.at)

    def per(self, count: float) -> str:
        """Return what each of `count` costs, in words."""
        parts = ", ".join(f"{name} {seconds / count * 1000:.2f} ms" for name, seconds in self.cpu.items())
        return f"{parts}; Redis sends {self.sent_bytes / count / 1024:.1f} KiB for {self.commands / count:.1f} commands"


class Simulation:
    """A Redis, a leader and simulated nodes."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder, self._nodes = folder, nodes
        self.url = f"unix://{folder / 'redis.sock'}?db=0"
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {}

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[RedisClient]:
        """Start everything, and end it again."""
        try:
            self._spawn("redis", [*redis_command(self._folder), "--maxclients", "20000"])
            await eventually((self._folder / "redis.sock").exists, 30, "a socket of Redis")
            self.spawn_role("leader", [range(1)])
            self.spawn_role("nodes", self._shares())
            self.spawn_role("activators", self._shares())
            async with connected(self.url, "bench") as redis:
                yield redis
        finally:
            for name in reversed(list(self._processes)):
                self.end(name)

    def _shares(self) -> list[range]:
        return [
            range(first, min(first + PER_PROCESS, self._nodes + 1)) for first in range(1, self._nodes + 1, PER_PROCESS)
        ]

    def spawn_role(self, role: str, shares: Sequence[range], **environment: str) -> None:
        for share in shares:
            command = [
                sys.executable,
                "-m",
                "bench.lib.simulated_nodes",
                role,
                self.url,
                str(share.start),
                str(len(share)),
            ]
            self._spawn(role, command, **environment)

    def spawn_reports(self, revisions: Sequence[str]) -> None:
        """Let each activator report requests."""
        self.spawn_role("reports", self._shares(), REPORTED=" ".join(revisions))

    def end(self, role: str) -> None:
        for process in self._processes.pop(role, []):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn(self, name: str, command: list[str], **environment: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
        self._processes.setdefault(name, []).append(process)

    async def cost(self, redis: RedisClient) -> Cost:
        stats = (await redis.execute("INFO", "stats")).decode()
        values = dict(line.split(":", 1) for line in stats.splitlines() if ":" in line)
        cpu = {name: cpu_seconds(each.pid for each in each_of) for name, each_of in self._processes.items()}
        return Cost(cpu, int(values["total_net_output_bytes"]), int(values["total_commands_processed"]))

    def count_in_log(self, role: str, text: str) -> int:
        return (self._folder / f"{role}.log").read_text().count(text)

    def memory_mib(self, role: str) -> float:
        return memory_kib(each.pid for each in self._processes[role]) / 1024


async def idle(simulation: Simulation, redis: RedisClient) -> Cost:
    """Return what all cost in `IDLE_SECONDS` without an event."""
    before = await simulation.cost(redis)
    await asyncio.sleep(IDLE_SECONDS)
    return (await simulation.cost(redis)).since(before)


async def started(simulation: Simulation, redis: RedisClient, nodes: int) -> Cost:
    """Create the Revisions, and return the cost until all their instances are published."""
    store, table = RedisStore(redis), RedisTable(redis, ENDPOINTS, RevisionEndpoints)
    before = await simulation.cost(redis)
    for number in range(REVISIONS):
        annotations = {"autoscaling.knative.dev/min-scale": str(EACH)}
        await store.create(kinds.REVISION.id, body(f"r{number}-00001", annotations=annotations))
        await asyncio.sleep(nodes * PACE)

    async def all_published() -> bool:
        _, entries = await table.snapshot()
        return sum(len(entry.endpoints) for _, entry in entries.values()) == INSTANCES

    await eventually(all_published, READY_SECONDS, "the endpoints of all instances")
    cost = (await simulation.cost(redis)).since(before)
    await store.close()
    return cost


async def prepared(simulation: Simulation, redis: RedisClient) -> Cost:
    """Return what it costs that one node is to arm other Revisions, `CHANGES` times."""
    table = RedisTable(redis, PREPARATIONS, Preparation)
    before = await simulation.cost(redis)
    for change in range(CHANGES):
        recent = tuple(RecentRevision(str(uuid.uuid4()), float(change)) for _ in range(CANDIDATES_PER_NODE))
        await table.put("n1", Preparation(0, recent))
    await asyncio.sleep(5)
    return (await simulation.cost(redis)).since(before)


async def acknowledged(redis: RedisClient, nodes: int) -> float:
    """Return the median seconds until all activators have acknowledged a changed Route."""
    table, seconds = RedisTable(redis, ROUTING, RouteEntry), []
    for number in range(ROUTES):
        waiting = {f"activator-n{node}" for node in range(1, nodes + 1)}
        began = time.monotonic()
        version = await table.put("default/probe", RouteEntry({f"probe{number}.localhost": ()}, {}))
        async for name, acknowledged in table.acknowledgements():
            if acknowledged >= version:
                waiting.discard(name)
            if not waiting:
                break
        seconds.append(time.monotonic() - began)
    return median(seconds)


async def reported(simulation: Simulation, redis: RedisClient) -> Cost:
    """Return what reports cost, from the activator of each node for each Revision."""
    revisions = [f"default/r{number}-00001" for number in range(REVISIONS)]
    simulation.spawn_reports(revisions)
    await asyncio.sleep(5)
    before = await simulation.cost(redis)
    await asyncio.sleep(REPORT_SECONDS)
    cost = (await simulation.cost(redis)).since(before)
    simulation.end("reports")
    return cost


async def measure(nodes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="knoll-bench-") as folder:
        simulation = Simulation(Path(folder), nodes)
        async with simulation.up() as redis:
            table = RedisTable(redis, NODES, Node)

            async def all_there() -> bool:
                return len((await table.snapshot())[1]) == nodes + 1

            await eventually(all_there, UP_SECONDS, f"{nodes} nodes")
            await asyncio.sleep(5)
            print(f"== {nodes} nodes")
            resting = await idle(simulation, redis)
            print(f"without instances, each second: {resting.per(resting.at)}")
            starting = await started(simulation, redis, nodes)
            print(f"each started instance: {starting.per(INSTANCES)}")
            await asyncio.sleep(5)
            running = await idle(simulation, redis)
            print(f"with {INSTANCES} instances, each second: {running.per(running.at)}")
            preparing = await prepared(simulation, redis)
            print(f"each change of what a node arms: {preparing.per(CHANGES)}")
            seconds = await acknowledged(redis, nodes)
            print(f"a Route is acknowledged by all activators after {seconds * 1000:.0f} ms")
            reporting = await reported(simulation, redis)
            print(f"reports of requests, each second: {reporting.per(reporting.at)}")
            memory = {role: simulation.memory_mib(role) for role in ("redis", "leader")}
            lost = simulation.count_in_log("leader", "node does not respond")
            print(", ".join(f"{role} {mib:.0f} MiB" for role, mib in memory.items()), f"{lost} nodes lost", flush=True)
    return {
        "redis_idle_percent": running.cpu["redis"] / running.at * 100,
        "leader_idle_percent": running.cpu["leader"] / running.at * 100,
        "redis_ms_per_instance": starting.cpu["redis"] / INSTANCES * 1000,
        "leader_ms_per_instance": starting.cpu["leader"] / INSTANCES * 1000,
        "node_ms_per_instance": starting.cpu["nodes"] / INSTANCES / nodes * 1000,
        "sent_kib_per_instance": starting.sent_bytes / INSTANCES / 1024,
        "sent_kib_per_preparation": preparing.sent_bytes / CHANGES / 1024,
        "acknowledged_ms": seconds * 1000,
        "leader_reports_percent": (reporting.cpu["leader"] / reporting.at) * 100,
    }


UNITS = {"percent": "percent", "ms": "ms", "kib": "KiB"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.many_nodes", description=__doc__)
    parser.add_argument("--nodes", default="3,30,300", help="numbers of nodes (%(default)s)")
    options = parser.parse_args()
    results = {}
    with stoppable():
        for nodes in map(int, options.nodes.split(",")):
            results[nodes] = asyncio.run(measure(nodes))
    for nodes, values in results.items():
        for name, value in values.items():
            unit = next(unit for part, unit in UNITS.items() if part in name.split("_"))
            print(f"RESULT nodes{nodes}.{name} {value:.2f} {unit}")


if __name__ == "__main__":
    main()
