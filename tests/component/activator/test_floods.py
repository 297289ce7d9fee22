"""Floods of HTTP/2 frames: each costs little before its connection ends (bench/floods.py has the time it takes)."""

import asyncio

import pytest

from activator.frontend.http1_server import Http1Connection
from activator.frontend.http2_server import Http2Connection
from activator.frontend.limits import HEAD_SECONDS
from activator.routing.proxy_state import ClientConnection
from activator.wire.http2_codec import CodecFactory
from activator.wire.http2_frames import BURST, CONTINUATION, HEADERS, PREFACE, SETTINGS
from bench.floods import FLOODS, Requests
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.h2_wire import END_STREAM, Wire, frame
from tests.component.activator.pipes import Scene, turns
from tests.component.activator.stage import HOST, Stage
from tests.waiting import eventually

pytestmark = OVER_CODECS
TAKEN = {"data_one_byte", "data_one_byte_200_streams", "data_closed_stream", "headers_huffman"}
"""Floods that need not end their connection: what they ask for is put together, or is mostly what they send."""


@pytest.mark.parametrize("name", FLOODS)
async def test_any_number_of_frames_of_a_kind_is_bounded_work(codec: CodecFactory, name: str) -> None:
    scene = Scene(codec)
    flood = PREFACE + frame(SETTINGS) + FLOODS[name](Requests(HOST if "data" in name else "nowhere.example", 300_000))
    scene.client.arrive(flood[:1000])
    session = scene.client.protocol
    assert isinstance(session, Http2Connection)
    for at in range(1000, len(flood), 65_536):
        scene.client.arrive(flood[at : at + 65_536])
        while session._read_pending:
            await turns(1)
    assert session.codec.ended or name in TAKEN
    # Frames that reach the library cost the most; of the smallest there are more than thirty thousand.
    assert session.codec.frames < 4 * BURST * (2 if name == "trailers" else 1)  # of two frames for each request
    assert len(scene.client.written) < 2_000_000
    await scene.end()


async def test_a_flood_is_read_in_turns_with_others(stage: Stage) -> None:
    await stage.serving()
    wires = [Wire(await stage.connect()) for _ in range(20)]
    for wire in wires:
        wire.send(*(wire.open(number) for number in range(1, 400, 2)))
    assert (await stage.get()).status == 200
    for wire in wires:
        seen = await wire.until(1, 399)
        assert (seen.goaway, seen.heads[1][":status"]) == (None, "200")


async def test_a_client_that_works_is_never_charged_out(stage: Stage) -> None:
    """Many more requests, windows and resets than one account holds, each paid for by useful work."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    await stage.serving(handler)
    wire = Wire(await stage.connect())
    for start in range(1, 6 * BURST, 200):
        numbers = range(start, start + 200, 2)
        wire.send(*(wire.open(number) for number in numbers))
        seen = await wire.until(*numbers)
        assert seen.goaway is None
        wire.send(*(frame(8, b"\0\0\0\5") for _ in numbers), *(frame(8, b"\0\0\0\5", number) for number in numbers))
    assert len(wire.seen.whole) > 3 * BURST - 200


@pytest.mark.parametrize(
    "begun",
    [
        PREFACE[:10],
        PREFACE,
        PREFACE + frame(SETTINGS) + frame(HEADERS, b"\x82", 1, END_STREAM),
        PREFACE + frame(SETTINGS) + frame(HEADERS, b"\x82", 1, END_STREAM) + frame(CONTINUATION, b"\x84", 1),
    ],
    ids=["half a preface", "no SETTINGS", "half a header block", "more of it"],
)
async def test_a_slow_beginning_or_header_block_ends_the_connection(stage: Stage, begun: bytes) -> None:
    client = await stage.connect()
    client.send(begun)
    http2 = len(begun) >= len(PREFACE)

    def begins(connection: ClientConnection) -> bool:
        if http2:
            return isinstance(connection, Http2Connection)
        return isinstance(connection, Http1Connection) and bool(connection._buffer)

    await eventually(lambda: any(begins(connection) for connection in stage.gateway.connections))
    (connection,) = stage.gateway.connections
    connection.sweep(stage.gateway.time() + HEAD_SECONDS - 5)
    assert not client.reader.at_eof()
    connection.sweep(stage.gateway.time() + HEAD_SECONDS + 5)
    await client.closed()
    client.close()
    await eventually(lambda: not stage.gateway.connections)


async def test_a_half_frame_of_a_working_connection_is_waited_for(stage: Stage) -> None:
    await stage.serving()
    wire = Wire(await stage.connect())
    request = wire.open(1)
    wire.send(request[:5])
    await eventually(lambda: stage.gateway.connections)
    wire.send(request[5:])
    assert (await wire.until(1)).heads[1][":status"] == "200"
