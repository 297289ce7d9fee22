"""The process as it is started: real Redis, real signals, several workers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from knoll.messages.endpoints import ENDPOINTS, Endpoint, RevisionEndpoints
from knoll.messages.routing import ROUTING, RequestPolicy, RouteEntry, Share
from knoll.redis import keys
from knoll.redis.client import RedisClient, connect
from knoll.tables.redis_tables import RedisTable
from tests.component.activator.stage import HOST, REVISION, App, Connection, read_request
from tests.component.knoll.conftest import RedisProcess
from tests.conftest import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.redis
ROOT = Path(__file__).parents[3]


class Process:
    """A running activator."""

    def __init__(self, redis_url: str, workers: int, **more: str) -> None:
        self.port, self.admin = free_port(), free_port()
        environment = {
            **os.environ, "KNOLL_REDIS_URL": redis_url, "KNOLL_ACTIVATOR_PORTS": str(self.port),
            "KNOLL_ACTIVATOR_ADMIN_PORT": str(self.admin), "KNOLL_ACTIVATOR_WORKERS": str(workers),
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", **more,
        }  # fmt: skip
        self.child = subprocess.Popen(
            [sys.executable, "-m", "activator"], env=environment, stdout=subprocess.PIPE, start_new_session=True
        )

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    async def ready(self) -> "Process":
        async def check() -> bool:
            assert self.child.poll() is None
            return (await asyncio.to_thread(self.ask, "/readyz"))[0] == 200

        await eventually(check, within=30)
        return self

    def workers(self) -> set[int]:
        pid = self.child.pid
        return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))

    async def refuses(self) -> bool:
        try:
            (await self.connect()).close()
        except ConnectionError:
            return True
        return False

    async def get(self, host: str = HOST) -> int:
        client = await self.connect()
        try:
            return (await client.get(host=host, extra="Connection: close\r\n").answer()).status
        finally:
            client.close()

    def end(self) -> int:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(40)
        finally:
            if self.child.stdout:
                self.child.stdout.close()


@contextmanager
def running(redis_url: str, workers: int = 1, **more: str) -> Iterator[Process]:
    process = Process(redis_url, workers, **more)
    try:
        yield process
    finally:
        process.end()


async def tell(redis: RedisClient, endpoints: tuple[Endpoint, ...], policy: RequestPolicy | None = None) -> int:
    entry = RouteEntry(hosts={HOST: (Share(REVISION, 100),)}, revisions={REVISION: policy or RequestPolicy()})
    await RedisTable(redis, ENDPOINTS, RevisionEndpoints).put(REVISION, RevisionEndpoints(endpoints))
    return await RedisTable(redis, ROUTING, RouteEntry).put("default/app", entry)


async def until_heard(redis: RedisClient, name: str, version: int, count: int) -> None:
    table = RedisTable(redis, name, RouteEntry if name == ROUTING else RevisionEndpoints)

    async def heard() -> bool:
        followers = await table.followers()
        return len(followers) == count and all(reported >= version for reported in followers.values())

    await eventually(heard)


async def test_a_process_follows_acknowledges_reports_and_ends_gracefully(redis: RedisClient, redis_url: str) -> None:
    proceed = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await proceed.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app = await App(handler).start()
    async with redis.subscribe(keys.REPORTS, keys.POKES) as channel:
        with running(redis_url, KNOLL_REPORT_SECONDS="0.1") as process:
            await process.ready()
            version = await tell(redis, ())
            await until_heard(redis, ROUTING, version, 1)
            client = (await process.connect()).get()

            async def reported(channel_name: str, check: Callable[[dict[str, object]], bool]) -> bool:
                message = await channel.next(0.1)
                return bool(message and message[0] == channel_name and check(json.loads(message[1])))

            await eventually(lambda: reported(keys.POKES, lambda poke: poke["revision"] == REVISION))
            await eventually(
                lambda: reported(keys.REPORTS, lambda report: bool(report["revisions"][0]["queued"]))  # type: ignore[index]
            )
            await tell(redis, (app.endpoint(),))
            await eventually(lambda: app.open == 1)
            process.child.send_signal(signal.SIGTERM)
            await eventually(process.refuses)
            proceed.set()
            assert (await client.answer()).status == 200, "it ends after its requests"
            client.close()
            assert await asyncio.to_thread(process.end) == 0
    assert await RedisTable(redis, ROUTING, RouteEntry).followers() == {}
    await app.stop()


async def test_a_port_in_use_is_reported(redis_url: str) -> None:
    with running(redis_url) as process:
        await process.ready()
        with running(redis_url, KNOLL_ACTIVATOR_PORTS=str(process.port)) as second:
            assert await asyncio.to_thread(second.child.wait, 20) == 1


async def test_the_last_tables_serve_while_redis_is_away(own_redis: RedisProcess) -> None:
    app = await App().start()
    client = connect(own_redis.url, "test")
    with running(own_redis.url) as process:
        await process.ready()
        await tell(client, (app.endpoint(),))
        await eventually(lambda: _is(process.get(), 200))
        own_redis.kill()
        assert {await process.get() for _ in range(50)} == {200}
        own_redis.start()
        version = await RedisTable(client, ROUTING, RouteEntry).put(
            "default/new", RouteEntry({"new.localhost": (Share(REVISION, 100),)}, {REVISION: RequestPolicy()})
        )
        await until_heard(client, ROUTING, version, 1)
        assert await process.get("new.localhost") == 200
    await client.aclose()
    await app.stop()


async def _is(answer: Awaitable[int], expected: int) -> bool:
    return await answer == expected


class Counting:
    """Instances that count how many requests each holds at once."""

    def __init__(self) -> None:
        self.inside: dict[str, int] = {}
        self.most = 0
        self.total = 0

    def handler(self, name: str) -> Callable[..., object]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_request(reader)
                self.inside[name] = self.inside.get(name, 0) + 1
                self.most = max(self.most, self.inside[name])
                self.total += 1
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                self.inside[name] -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        return handle


async def load(process: Process, count: int, clients: int) -> list[int]:
    async def statuses_of_client() -> list[int]:
        client = await process.connect()
        statuses = [(await client.get().answer()).status for _ in range(count // clients)]
        client.close()
        return statuses

    return [status for each in await asyncio.gather(*(statuses_of_client() for _ in range(clients))) for status in each]


async def test_no_instance_ever_holds_two_over_all_workers(redis: RedisClient, redis_url: str) -> None:
    counting = Counting()
    apps = [await App(counting.handler(f"i{n}"), f"i{n}").start() for n in range(8)]  # type: ignore[arg-type]
    with running(redis_url, workers=2) as process:
        await process.ready()
        version = await tell(redis, tuple(app.endpoint() for app in apps), RequestPolicy(concurrency=1))
        await until_heard(redis, ROUTING, version, 2)
        statuses = await load(process, 10_000, 100)
        assert (set(statuses), len(statuses)) == ({200}, 10_000)
        assert (counting.most, counting.total) == (1, 10_000)
        status, text = await asyncio.to_thread(process.ask, "/metrics")
        assert status == 200
        assert f'knoll_requests_total{{code="200",revision="{REVISION}"}} 10000.0' in text
    for app in apps:
        await app.stop()


async def test_a_killed_worker_gives_back_its_slots_and_is_replaced(redis: RedisClient, redis_url: str) -> None:
    hold = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await hold.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app = await App(handler).start()
    with running(redis_url, workers=2) as process:
        await process.ready()
        version = await tell(redis, (app.endpoint(),), RequestPolicy(concurrency=1))
        await until_heard(redis, ROUTING, version, 2)
        clients = [(await process.connect()).get(extra="Connection: close\r\n") for _ in range(40)]

        async def all_accepted() -> bool:
            """What no worker has accepted yet waits for the next one, and is not lost with a worker."""
            _, text = await asyncio.to_thread(process.ask, "/metrics")
            return app.open == 1 and "knoll_client_connections 40.0" in text

        await eventually(all_accepted)
        before = process.workers()
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        hold.set()
        # Requests in the killed worker are lost with it; all others are served, whichever worker held the slot.
        answers = [await client.closed() for client in clients]
        assert {answer[:12] for answer in answers} == {b"", b"HTTP/1.1 200"}
        for client in clients:
            client.close()
        await eventually(lambda: len(process.workers()) == 2 and killed not in process.workers())
        await process.ready()
        assert {await process.get() for _ in range(20)} == {200}
    await app.stop()


async def test_new_workers_take_over_without_a_refused_connection(redis: RedisClient, redis_url: str) -> None:
    app = await App().start()
    with running(redis_url, workers=2) as process:
        await process.ready()
        version = await tell(redis, (app.endpoint(),))
        await until_heard(redis, ROUTING, version, 2)
        before = process.workers()
        statuses: list[int] = []
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                statuses.append(await process.get())

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        process.child.send_signal(signal.SIGHUP)
        await eventually(lambda: len(process.workers()) == 2 and not process.workers() & before, within=30)
        done.set()
        await asyncio.gather(*asking)
        assert set(statuses) == {200}
        assert len(statuses) > 50
    await app.stop()


async def test_a_process_without_workers_keeps_serving_on_sighup(redis: RedisClient, redis_url: str) -> None:
    app = await App().start()
    with running(redis_url, workers=1) as process:
        await process.ready()
        version = await tell(redis, (app.endpoint(),))
        await until_heard(redis, ROUTING, version, 1)
        process.child.send_signal(signal.SIGHUP)
        assert process.child.stdout
        lines = iter(process.child.stdout.readline, b"")
        log_line = await asyncio.to_thread(lambda: next(line for line in lines if b"SIGHUP" in line))
        assert b"KNOLL_ACTIVATOR_WORKERS" in log_line
        assert await process.get() == 200
    await app.stop()
