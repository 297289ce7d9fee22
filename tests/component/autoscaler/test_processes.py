"""Two autoscaler processes as nodes of one platform, each with an engine that ends with it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from knoll.messages.endpoints import ENDPOINTS, Endpoint, RevisionEndpoints
from knoll.messages.nodes import NODES, Node
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from tests.conftest import free_port
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

KEY = "default/hello-00001"
ROOT = Path(__file__).parents[3]


class Processes:
    """The processes by the name of their node."""

    def __init__(self, redis: RedisClient, url: str) -> None:
        self.redis, self._url = redis, url
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.admin_ports: dict[str, int] = {}

    def start(self, node: str) -> None:
        self.admin_ports[node] = free_port()
        environment = {
            **os.environ,
            "KNOLL_REDIS_URL": self._url,
            "KNOLL_NODE": node,
            "KNOLL_NODE_ADDRESS": "10.77.0.1",
            "KNOLL_NODE_RELAY_PORT": "8444",
            "KNOLL_NODE_ADMIN_PORT": "7443",
            "KNOLL_AUTOSCALER_ADMIN_PORT": str(self.admin_ports[node]),
            "KNOLL_TICK_SECONDS": "0.2",
            "KNOLL_ARMED_INSTANCES": "0",
        }
        self.running[node] = subprocess.Popen(
            [sys.executable, "-m", "bench.fake_autoscaler"], env=environment, cwd=ROOT
        )

    async def nodes(self) -> dict[str, Node]:
        table: RedisTable[Node] = RedisTable(self.redis, NODES, Node)
        return {name: node for name, (_, node) in (await table.snapshot())[1].items()}

    async def endpoints(self) -> tuple[Endpoint, ...]:
        table: RedisTable[RevisionEndpoints] = RedisTable(self.redis, ENDPOINTS, RevisionEndpoints)
        _, entries = await table.snapshot()
        return entries[KEY][1].endpoints if KEY in entries else ()


@pytest.fixture
async def processes(redis_url: str) -> AsyncIterator[Processes]:
    async with connected(redis_url, "processes-test") as redis:
        started = Processes(redis, redis_url)
        try:
            yield started
        finally:
            for process in started.running.values():
                process.kill()
                process.wait()


async def test_another_process_leads_and_serves_after_the_leader_was_killed(processes: Processes) -> None:
    processes.start("n1")
    await eventually(lambda: is_ready(processes, "n1"), condition="n1 is ready")
    processes.start("n2")
    await eventually(lambda: is_ready(processes, "n2"), condition="n2 is ready")

    async def registered() -> bool:
        return set(await processes.nodes()) == {"n1", "n2"}

    await eventually(registered, condition="both are registered")
    node = (await processes.nodes())["n1"]
    assert (node.address, node.relay_port, node.admin_port) == ("10.77.0.1", 8444, 7443)
    assert node.cores > 0
    store = RedisStore(processes.redis)
    await store.create(kinds.REVISION.id, body(annotations={"autoscaling.knative.dev/min-scale": "1"}))

    async def serves(node: str) -> bool:
        return [(each.node, each.state) for each in await processes.endpoints()] == [(node, "ready")]

    await eventually(lambda: serves("n1"), condition="n1 serves")
    processes.running["n1"].send_signal(signal.SIGKILL)
    await eventually(lambda: serves("n2"), condition="n2 leads and serves")

    async def left() -> bool:
        return set(await processes.nodes()) == {"n2"}

    await eventually(left, condition="n1 is not registered any more")
    await store.close()
    processes.running["n2"].send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(processes.running["n2"].wait, 30) == 0


async def is_ready(processes: Processes, node: str) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{processes.admin_ports[node]}/readyz")).status_code == 200
    except httpx.HTTPError:
        return False
