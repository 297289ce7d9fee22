"""A client that stops reading: its data waits in the kernel and in the app, not in the activator."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import h2.config
import h2.connection
import h2.settings
import pytest

from knoll.messages.routing import ROUTING
from knoll.redis.client import RedisClient
from tests.component.activator.stage import HOST, App, read_request
from tests.component.activator.test_process import Process, running, tell, until_heard
from tests.waiting import eventually

pytestmark = pytest.mark.redis

MIB = 1024**2
STALLED = 20
"""Readers that stall at once, so that what one of them holds shows over the noise of a process."""


class Endless:
    """An app that sends for as long as its data is read."""

    def __init__(self) -> None:
        self.sent: dict[int, int] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.sent)
        self.sent[number] = 0
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"s" * 65536 + b"\r\n"
        while True:
            writer.write(piece)
            await writer.drain()
            self.sent[number] += 65536

    async def still(self) -> None:
        """Wait until no data is read any more."""
        seen: list[dict[int, int]] = []

        async def same() -> bool:
            seen.append(dict(self.sent))
            await asyncio.sleep(0.2)  # how long nothing has to move
            return len(self.sent) >= STALLED and self.sent == seen[-1] and all(self.sent.values())

        await eventually(same, 60, "the app to be held up")


@pytest.fixture
async def endless() -> AsyncIterator[tuple[Endless, App]]:
    handler = Endless()
    app = await App(handler).start()
    yield handler, app
    await app.stop()


def resident(process: Process) -> float:
    lines = Path(f"/proc/{process.child.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def request(version: str) -> bytes:
    if version == "HTTP/1.1":
        return f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.local_settings = h2.settings.Settings(
        client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}
    )
    peer.initiate_connection()
    # The windows are open: only the socket, which is not read, blocks the server.
    peer.increment_flow_control_window(2**31 - 1 - 65535)
    peer.send_headers(
        1, [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/")], end_stream=True
    )
    return peer.data_to_send()


def stall(port: int, version: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.sendall(request(version))
    return client


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_a_stalled_reader_holds_less_than_a_mebibyte(
    version: str, redis: RedisClient, redis_url: str, endless: tuple[Endless, App]
) -> None:
    handler, app = endless
    with running(redis_url) as process:
        await process.ready()
        heard = await tell(redis, (app.endpoint(),))
        await until_heard(redis, ROUTING, heard, 1)
        warm = [stall(process.port, version) for _ in range(STALLED)]
        await handler.still()
        for client in warm:
            client.close()
        await eventually(lambda: app.open == 0, 30, "the end of the first")
        handler.sent.clear()
        before = resident(process)
        clients = [stall(process.port, version) for _ in range(STALLED)]
        await handler.still()
        each = (resident(process) - before) / STALLED
        for client in clients:
            client.close()
        assert each < 1, f"{each:.2f} MiB for each stalled reader"


async def test_a_first_stalled_reader_holds_less_than_a_mebibyte_too(
    redis: RedisClient, redis_url: str, endless: tuple[Endless, App]
) -> None:
    handler, app = endless
    with running(redis_url) as process:
        await process.ready()
        heard = await tell(redis, (app.endpoint(),))
        await until_heard(redis, ROUTING, heard, 1)
        assert await process.get(host="unknown") == 404
        before = resident(process)
        clients = [stall(process.port, version) for version in ("HTTP/1.1", "HTTP/2") for _ in range(STALLED // 2)]
        await handler.still()
        each = (resident(process) - before) / STALLED
        for client in clients:
            client.close()
        assert each < 1, f"{each:.2f} MiB for each stalled reader"
