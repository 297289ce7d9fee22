"""All kinds of load at once, for a while: no request may fail unless its client aborted it."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import httpx

from knoll.messages.endpoints import Endpoint
from knoll.messages.routing import RequestPolicy
from tests.component.activator.stage import HOST, Answer, App, Connection, Stage, read_request
from tests.waiting import eventually

SECONDS = float(os.environ.get("KNOLL_SOAK_SECONDS", "8"))
"""600 for the long form."""

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


class Front(Protocol):
    """Where requests go in."""

    port: int

    async def connect(self) -> Connection: ...

    async def get(self, path: str = "/", host: str = HOST, extra: str = "") -> Answer: ...


async def app_of_all_kinds(reader: Reader, writer: Writer) -> None:
    """Echoes bodies, streams, and speaks a protocol of its own after an upgrade."""
    while True:
        request = await read_request(reader)
        if "upgrade" in request.fields:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            while data := await reader.read(1000):
                writer.write(data)
            return
        if "/stream" in request.line:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                writer.write(b"400\r\n" + b"s" * 1024 + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            await asyncio.sleep(random.random() * 0.005)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.body), request.body))


async def small(stage: Front) -> None:
    answer = await stage.get(extra="Connection: close\r\n")
    assert answer.status == 200


async def upload(stage: Front) -> None:
    client = await stage.connect()
    body = os.urandom(random.randrange(1, 300_000))
    client.get(method="POST", extra=f"Content-Length: {len(body)}\r\n").send(body)
    answer = await client.answer()
    client.close()
    assert (answer.status, answer.body) == (200, body)


async def stream(stage: Front) -> None:
    client = await stage.connect()
    answer = await client.get("/stream").answer()
    client.close()
    assert (answer.status, len(answer.body)) == (200, 20 * 1024)


async def slow(stage: Front) -> None:
    client = await stage.connect()
    for byte in f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc".encode():
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    answer = await client.answer()
    client.close()
    assert (answer.status, answer.body) == (200, b"abc")


async def aborted(stage: Front) -> None:
    client = await stage.connect()
    client.get("/stream")
    await asyncio.sleep(random.random() * 0.01)
    client.writer.transport.abort()


async def tunnel(stage: Front) -> None:
    client = await stage.connect()
    status, _ = await client.get(extra="Connection: Upgrade\r\nUpgrade: echo\r\n").head()
    assert status == 101
    for _ in range(5):
        client.send(b"ping")
        assert await client.reader.readexactly(4) == b"ping"
    client.close()


async def http2(stage: Front) -> None:
    async with httpx.AsyncClient(http1=False, http2=True, timeout=20) as client:
        url = f"http://127.0.0.1:{stage.port}/"
        answers = await asyncio.gather(
            *(client.post(url, headers={"Host": HOST}, content=b"x" * 10_000) for _ in range(5))
        )
    assert [(answer.status_code, len(answer.content)) for answer in answers] == [(200, 10_000)] * 5


async def test_nothing_fails_while_instances_come_drain_and_go(stage: Stage) -> None:
    stage.route(RequestPolicy(concurrency=5))
    loop = asyncio.get_running_loop()
    until = loop.time() + SECONDS
    done: Counter[str] = Counter()

    async def keep(kind: Callable[[Front], Awaitable[None]]) -> None:
        while loop.time() < until:
            await kind(stage)
            done[kind.__name__] += 1

    async def change() -> None:
        """What the autoscaler does: instances come, drain until nothing is in flight, and are stopped."""
        apps: list[App] = []
        number = 0
        while loop.time() < until:
            while len(apps) < 3:
                number += 1
                apps.append(await stage.app(app_of_all_kinds, f"app-{number}"))
            stage.endpoints(*(app.endpoint() for app in apps))
            await asyncio.sleep(0.2)
            leaving = apps.pop(0)
            draining = leaving.endpoint("draining")
            rest: tuple[Endpoint, ...] = () if number % 4 == 0 else tuple(app.endpoint() for app in apps)
            if not rest:  # to zero for a moment
                while apps:
                    rest = (*rest, apps.pop().endpoint("draining"))
            stage.endpoints(draining, *rest)
            revision = stage.gateway.revision("default/app-00001")
            await eventually(
                lambda: not any(each.draining and each.in_flight for each in revision.endpoints.values())  # noqa: B023
            )
            await leaving.stop()
        stage.endpoints(*(app.endpoint() for app in apps), (await stage.app(app_of_all_kinds, "last")).endpoint())

    kinds = (small, small, small, upload, stream, slow, aborted, tunnel, http2)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(change())
        for kind in kinds:
            tasks.create_task(keep(kind))
    assert all(done[kind.__name__] > 5 for kind in kinds), done
    stats = stage.gateway.revision("default/app-00001").stats
    assert stats.codes.keys() <= {200, 101, 499}, stats.codes
    assert not stage.gateway.requests
