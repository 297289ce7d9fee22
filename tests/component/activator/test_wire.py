"""Invalid requests on the wire: the table of the unit tests, split anywhere, and what only a connection shows."""

import asyncio

import pytest

from tests.component.activator.stage import HOST, Stage, read_request
from tests.unit.activator.wire.test_http1_parser import REFUSED
from tests.waiting import eventually


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in ("no request line",)])
async def test_a_refused_head_gets_its_status_and_a_close(stage: Stage, name: str) -> None:
    app = await stage.serving()
    wire, status = REFUSED[name]
    for size in (len(wire), 7):
        client = await stage.connect()
        for at in range(0, len(wire), size):
            client.send(wire[at : at + size])
            await client.writer.drain()
        client.send("GET / HTTP/1.1\r\nHost: " + HOST + "\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.fields["connection"]) == (status, "close")
        assert await client.closed() == b""
    assert app.requests == [], "nothing of it, nor of what follows it, reached the instance"


@pytest.mark.parametrize(
    "body",
    [b"x\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n", b"-1\r\n", b"0\r\nX : y\r\n\r\n", b"1;\x00\r\na\r\n"],
)
async def test_a_broken_chunk_is_a_400_and_the_instance_sees_no_end(stage: Stage, body: bytes) -> None:
    whole = asyncio.Event()
    broken = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_request(reader)
            whole.set()
        finally:
            broken.set()

    await stage.serving(handler)
    for together in (True, False):
        broken.clear()
        client = await stage.connect()
        head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        if together:
            client.send(head + body)
        else:
            client.send(head + b"2\r\nok\r\n")
            await eventually(lambda: stage.gateway.requests)
            client.send(body)
        assert (await client.answer()).status == 400
        await client.closed()
        if not together:
            await asyncio.wait_for(broken.wait(), 10)
    assert not whole.is_set()


async def test_a_head_that_never_ends_is_refused(stage: Stage) -> None:
    client = await stage.connect()
    client.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n" + "X: y\r\n" * 20_000)
    assert (await client.answer()).status == 431


async def test_a_target_that_never_ends_is_refused(stage: Stage) -> None:
    client = await stage.connect()
    client.send("GET /" + "a" * 70_000)
    assert (await client.answer()).status == 414


async def test_a_slow_head_is_refused(stage: Stage) -> None:
    client = await stage.connect()
    client.send("GET / HTTP/1.1\r\nHost: ")
    await eventually(lambda: stage.gateway.connections)
    connection = next(iter(stage.gateway.connections))
    await eventually(lambda: connection._buffer)  # type: ignore[attr-defined]
    connection.sweep(stage.gateway.time() + 31)
    assert (await client.answer()).status == 408


async def test_an_idle_connection_is_closed(stage: Stage) -> None:
    await stage.serving()
    client = await stage.connect()
    await client.get().answer()
    next(iter(stage.gateway.connections)).sweep(stage.gateway.time() + 200)
    assert await client.closed() == b""


async def test_bytes_after_a_response_are_not_used_for_the_next_one(stage: Stage) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        poison = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood" + poison)
        await reader.read()

    app = await stage.serving(handler)
    client = await stage.connect()
    for _ in range(3):
        assert (await client.get().answer()).text == "good"
    assert app.connections == 3
