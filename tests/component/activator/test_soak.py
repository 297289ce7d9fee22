"""The process as it is deployed, with two workers, under every kind of load while everything around it changes.

Revisions roll, instances come, drain and go, and the workers are replaced by new ones again and again: no request may
fail unless its client aborted it, and memory does not grow.
"""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import msgspec
import pytest

from knoll.messages.endpoints import ENDPOINTS, Endpoint, RevisionEndpoints
from knoll.messages.reports import Report
from knoll.messages.routing import ROUTING, RequestPolicy, RouteEntry, Share
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.tables.redis_tables import RedisTable
from tests.component.activator import test_mixed_load as mixed
from tests.component.activator.stage import HOST, Answer, App, Connection
from tests.component.activator.test_process import Process, running
from tests.conftest import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.redis

SECONDS = float(os.environ.get("KNOLL_SOAK_SECONDS", "10"))
"""600 for the long form, whose figures go to the output (`pytest -s`)."""
GRPC_HOST = "grpc.default.localhost"
REVISIONS = ("default/app-00001", "default/app-00002")
FLAT_MIB = 40.0
"""By which the workers' memory may grow from its first tenth to its end: what a new worker takes while the old one
still has requests is not among it."""


class Door:
    """The process, as the kinds of load see it."""

    def __init__(self, process: Process) -> None:
        self.process, self.port = process, process.port

    async def connect(self) -> Connection:
        return await self.process.connect()

    async def get(self, path: str = "/", host: str = HOST, extra: str = "") -> Answer:
        client = await self.connect()
        try:
            return await client.get(path, host, extra).answer()
        finally:
            client.close()

    def resident_mib(self) -> float:
        """Of all its processes."""
        total = 0
        for pid in (self.process.child.pid, *self.process.workers()):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return total / 1024


@asynccontextmanager
async def grpc_app() -> AsyncIterator[int]:
    """A gRPC server that echoes: one for one, and one for twenty; its port."""

    async def echo(request: bytes, _: object) -> bytes:
        return request

    async def many(request: bytes, _: object) -> AsyncIterator[bytes]:
        for _number in range(20):
            yield request

    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Many": grpc.unary_stream_rpc_method_handler(many),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("soak.Soak", handlers)])
    port = free_port()
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(1)


class Grpc:
    """Calls over one channel that stays open, whatever becomes of the worker that has it."""

    def __init__(self, port: int) -> None:
        options = [("grpc.default_authority", GRPC_HOST), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._echo = self._channel.unary_unary("/soak.Soak/Echo")
        self._many = self._channel.unary_stream("/soak.Soak/Many")

    async def unary(self, _: mixed.Front) -> None:
        assert await self._echo(b"x" * 100, timeout=20) == b"x" * 100

    async def streaming(self, _: mixed.Front) -> None:
        assert [message async for message in self._many(b"y" * 1000, timeout=20)] == [b"y" * 1000] * 20

    async def close(self) -> None:
        await self._channel.close()


async def http2(front: mixed.Front) -> None:
    """As Go's client and browsers do, what the connection's end kept from being sent is sent again."""
    for _ in range(3):
        try:
            return await mixed.http2(front)
        except (httpx.LocalProtocolError, httpx.RemoteProtocolError) as error:
            # httpx takes a GOAWAY for the end of the connection and of all its streams, which it is not.
            if isinstance(error, httpx.RemoteProtocolError) and "error_code:0" not in str(error):
                raise
    raise AssertionError("three connections in turn were ended")


class Platform:
    """What the autoscaler and the API do to an activator: instances come, drain until nothing is in them, and go."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._endpoints = RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        self._routing = RedisTable(redis, ROUTING, RouteEntry)
        self._reports: dict[str, Report] = {}
        self._apps: dict[str, list[App]] = {revision: [] for revision in REVISIONS}
        self._number = 0

    async def listen(self) -> None:
        async with self._redis.subscribe(keys.REPORTS) as channel:
            while (message := await channel.next()) is not None:
                report = msgspec.json.decode(message[1], type=Report)
                self._reports[report.activator] = report

    async def route(self, first: int) -> None:
        """Give the first revision this percentage, the second the rest."""
        shares = (Share(REVISIONS[0], first), Share(REVISIONS[1], 100 - first))
        planes = {revision: RequestPolicy(concurrency=5) for revision in REVISIONS}
        await self._acknowledged(
            self._routing, await self._routing.put("default/app", RouteEntry({HOST: shares}, planes))
        )

    async def fill(self, revision: str) -> None:
        apps = self._apps[revision]
        while len(apps) < 3:
            self._number += 1
            apps.append(await App(mixed.app_of_all_kinds, f"app-{self._number}").start())
        await self._tell(revision)

    async def drop(self, revision: str) -> None:
        """Remove the oldest instance as the autoscaler does: no picks any more, no requests in it, then stop it."""
        leaving = self._apps[revision].pop(0)
        acknowledged = await self._tell(revision, leaving.endpoint("draining"))

        async def drained() -> bool:
            living = await self._endpoints.followers()
            reported = [self._reports.get(each) for each in living]
            return all(
                report
                and report.at > acknowledged
                and not report.draining.get(leaving.name)
                and not report.tunnels.get(leaving.name)  # all of them end here; the autoscaler waits for quiet ones
                for report in reported
            )

        await eventually(drained, 30, f"{leaving.name} to be drained")
        await self._tell(revision)
        await leaving.stop()

    async def stop(self) -> None:
        for apps in self._apps.values():
            for app in apps:
                await app.stop()

    async def _tell(self, revision: str, *more: Endpoint) -> float:
        endpoints = RevisionEndpoints((*more, *(app.endpoint() for app in self._apps[revision])))
        await self._acknowledged(self._endpoints, await self._endpoints.put(revision, endpoints))
        return time.time()

    async def _acknowledged(
        self, table: "RedisTable[RouteEntry] | RedisTable[RevisionEndpoints]", version: int
    ) -> None:
        async def heard() -> bool:
            return all(reported >= version for reported in (await table.followers()).values())

        await eventually(heard, 30, "all workers to know")


async def renew(process: Process) -> None:
    """New workers take the port over; the old ones end once nothing is in them."""
    before = process.workers()
    process.child.send_signal(signal.SIGHUP)
    await eventually(lambda: not process.workers() & before and len(process.workers()) == 2, 60, "new workers alone")


@pytest.mark.timeout(SECONDS + 120)
async def test_nothing_fails_while_everything_changes(redis: RedisClient, redis_url: str) -> None:
    done: Counter[str] = Counter()
    renewed = 0
    async with grpc_app() as grpc_port:
        with running(redis_url, workers=2, KNOLL_REPORT_SECONDS="0.2") as process:
            await process.ready()
            platform, door, calls = Platform(redis), Door(process), Grpc(process.port)
            listening = asyncio.create_task(platform.listen())
            for revision in REVISIONS:
                await platform.fill(revision)
            await platform.route(50)
            grpc_endpoint = Endpoint("grpc", "127.0.0.1", grpc_port)
            await RedisTable(redis, ENDPOINTS, RevisionEndpoints).put("default/g", RevisionEndpoints((grpc_endpoint,)))
            entry = RouteEntry({GRPC_HOST: (Share("default/g", 100),)}, {"default/g": RequestPolicy(h2c=True)})
            await RedisTable(redis, ROUTING, RouteEntry).put("default/g", entry)
            await eventually(lambda: _routed(door), 30, "the gRPC route")
            loop = asyncio.get_running_loop()
            began = loop.time()
            until, memory = began + SECONDS, list[float]()

            async def keep(kind: Callable[[mixed.Front], Awaitable[None]]) -> None:
                while loop.time() < until:
                    await kind(door)
                    done[kind.__name__] += 1

            async def roll() -> None:
                share = 0
                while loop.time() < until:
                    for revision in REVISIONS:
                        await platform.drop(revision)
                        await platform.fill(revision)
                    share = (share + 30) % 101
                    await platform.route(share)

            async def replace() -> None:
                nonlocal renewed
                while loop.time() < until - 2:
                    await asyncio.sleep(min(15.0, SECONDS / 4))
                    await renew(process)
                    renewed += 1
                    memory.append(door.resident_mib())

            kinds = (mixed.small, mixed.small, mixed.small, mixed.upload, mixed.stream, mixed.slow, mixed.aborted,
                     mixed.tunnel, http2, calls.unary, calls.unary, calls.streaming)  # fmt: skip
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(roll())
                tasks.create_task(replace())
                for kind in kinds:
                    tasks.create_task(keep(kind))
            await calls.close()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await platform.stop()
    print(f"{SECONDS:g} s, workers renewed {renewed} times: {dict(done)}", file=sys.stderr)
    print(f"resident MiB after each: {[round(mebibytes) for mebibytes in memory]}", file=sys.stderr)
    assert renewed
    assert all(done[kind.__name__] > 5 for kind in kinds), done
    assert max(memory) - min(memory[: max(1, len(memory) // 10)]) < FLAT_MIB, memory


async def _routed(door: Door) -> bool:
    return (await door.get(host=GRPC_HOST, extra="Connection: close\r\n")).status != 404
