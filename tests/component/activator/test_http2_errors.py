"""Faults of HTTP/2: which end a stream alone, and which the connection (RFC 9113 §5.4)."""

import asyncio
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes

from activator.frontend.http2_server import MAX_STREAMS
from activator.wire.http2_frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.h2_wire import END_HEADERS, END_STREAM, GET, POST, Fields, Wire, frame, with_field
from tests.component.activator.stage import HOST, Stage, read_request
from tests.waiting import eventually

pytestmark = OVER_CODECS
PROTOCOL, CLOSED, SIZE = ErrorCodes.PROTOCOL_ERROR, ErrorCodes.STREAM_CLOSED, ErrorCodes.FRAME_SIZE_ERROR
FLOW, COMPRESSION = ErrorCodes.FLOW_CONTROL_ERROR, ErrorCodes.COMPRESSION_ERROR
PADDED = 0x8

MALFORMED: dict[str, Fields] = {
    "no path": [f for f in GET if f[0] != ":path"],
    "empty path": with_field(":path", ""),
    "absolute path": with_field(":path", "http://other.default.localhost/"),
    "path without a slash": with_field(":path", "a"),
    "asterisk of GET": with_field(":path", "*"),
    "no method": [f for f in GET if f[0] != ":method"],
    "no scheme": [f for f in GET if f[0] != ":scheme"],
    "two paths": [*GET, (":path", "/other")],
    "two authorities": [*GET, (":authority", "other")],
    "pseudo field last": [("accept", "x"), *GET],
    "unknown pseudo field": [*GET, (":what", "x")],
    "protocol, which is not offered": [*with_field(":method", "CONNECT"), (":protocol", "websocket")],
    "status in a request": [*GET, (":status", "200")],
    "connection": [*GET, ("connection", "close")],
    "keep-alive": [*GET, ("keep-alive", "5")],
    "proxy-connection": [*GET, ("proxy-connection", "close")],
    "upgrade": [*GET, ("upgrade", "websocket")],
    "transfer-encoding": [*GET, ("transfer-encoding", "chunked")],
    "te that is not trailers": [*GET, ("te", "gzip")],
    "capitals": [*GET, ("Accept", "x")],
    "line feed in a value": [*GET, ("a", "b\nc: d")],
    "CRLF in a value": [*GET, ("a", "b\r\nc: d")],
    "NUL in a value": [*GET, ("a", "b\0")],
    "CRLF in the path": with_field(":path", "/ HTTP/1.1\r\nX: y"),
    "CRLF in the method": with_field(":method", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"),
    "CRLF in the authority": with_field(":authority", f"{HOST}\r\nX: y"),
    "blank before a value": [*GET, ("a", " b")],
    "tab behind a value": [*GET, ("a", "b\t")],
    "empty name": [*GET, ("", "c")],
    "blank in a name": [*GET, ("a b", "c")],
    "colon in a name": [*GET, ("a:b", "c")],
    "line feed in a name": [*GET, ("a\nb", "c")],
    "byte above ASCII in a name": [*GET, ("\xe9", "c")],
    "host that differs": [*GET, ("host", "other")],
    "two hosts": [*GET[:3], ("host", HOST), ("host", HOST)],
    "two lengths": [*POST, ("content-length", "1"), ("content-length", "2")],
    "length that is no number": [*POST, ("content-length", "+1")],
    "length without a body": [*POST, ("content-length", "1")],
    "no host": GET[:3],
    "empty host": with_field(":authority", ""),
    "host with a user": with_field(":authority", "u@a"),
    "host field with a blank": [*GET[:3], ("host", "a b")],
    "blank in the path": with_field(":path", "/a b"),
    "control byte in the path": with_field(":path", "/\x7f"),
    "method that is no token": with_field(":method", "G(T"),
    "scheme that is none": with_field(":scheme", "1http"),
    "control byte in a value": [*GET, ("a", "\x1b")],
    "the same length twice": [*POST, ("content-length", "0"), ("content-length", "0")],
    "CONNECT with a path": with_field(":method", "CONNECT"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_ends_only_its_stream(stage: Stage, name: str) -> None:
    app = await stage.serving()
    wire = Wire(await stage.connect())
    wire.send(wire.open(1, POST, done=False), wire.open(3, MALFORMED[name]), frame(DATA, b"", 1, END_STREAM))
    seen = await wire.send(wire.open(5)).until(1, 3, 5)
    assert (seen.resets, seen.goaway) == ({3: PROTOCOL}, None)
    assert [seen.heads[stream][":status"] for stream in (1, 5)] == ["200", "200"]
    # They arrive on two connections, which an instance may read in either order.
    assert sorted(request.line for request in app.requests) == ["GET / HTTP/1.1", "POST / HTTP/1.1"]


ANSWERED: dict[str, tuple[Fields, str]] = {
    "host that is none": (with_field(":authority", "a:b"), "400"),
    "host in brackets that is none": (with_field(":authority", "[x]"), "400"),
    "unknown expectation": ([*GET, ("expect", "cake")], "417"),
    "long path": (with_field(":path", "/" + "a" * 20_000), "414"),
    "many fields": ([*GET, *((f"x-{n}", "y") for n in range(300))], "431"),
    "large fields": ([*GET, *((f"x-{n}", "y" * 1000) for n in range(70))], "431"),
    "CONNECT": ([(":method", "CONNECT"), (":authority", "other:443")], "405"),
    "unknown host": (with_field(":authority", "nowhere"), "404"),
}


@pytest.mark.parametrize("name", ANSWERED)
async def test_what_is_well_formed_and_not_served_is_answered(stage: Stage, name: str) -> None:
    app = await stage.serving()
    wire = Wire(await stage.connect())
    fields, status = ANSWERED[name]
    block, parts = wire.block(fields), []
    parts.append(frame(HEADERS, block[:16_000], 1, END_STREAM | (0 if block[16_000:] else END_HEADERS)))
    for at in range(16_000, len(block), 16_000):
        parts.append(frame(CONTINUATION, block[at : at + 16_000], 1, 0 if block[at + 16_000 :] else END_HEADERS))
    seen = await wire.send(*parts, wire.open(3)).until(1, 3)
    assert ([seen.heads[n][":status"] for n in (1, 3)], seen.resets, seen.goaway) == ([status, "200"], {}, None)
    assert len(app.requests) == 1


Frames = Callable[[Wire], bytes]
# Of stream 1, a POST whose body has not ended, each time.
STREAM_ERRORS: dict[str, tuple[Frames, int, int]] = {
    "WINDOW_UPDATE by nothing": (lambda _: frame(WINDOW_UPDATE, bytes(4), 1), 1, PROTOCOL),
    "WINDOW_UPDATE beyond the largest window": (lambda _: frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff", 1), 1, FLOW),
    "PRIORITY of another length": (lambda _: frame(PRIORITY, bytes(4), 1), 1, SIZE),
    "DATA after the end": (
        lambda _: frame(DATA, b"abcde", 1, END_STREAM) + frame(DATA, b"x", 1), 1, CLOSED),
    "HEADERS after the end": (
        lambda w: frame(DATA, b"abcde", 1, END_STREAM) + w.open(1, [("x", "y")]), 1, CLOSED),
    "a longer body than it says": (lambda _: frame(DATA, b"abcdef", 1), 1, PROTOCOL),
    "a shorter body than it says": (lambda _: frame(DATA, b"abcd", 1, END_STREAM), 1, PROTOCOL),
    "trailers before the body is whole": (lambda w: frame(DATA, b"a", 1) + w.open(1, [("x", "y")]), 1, PROTOCOL),
    "trailers that do not end the stream": (lambda w: w.open(1, [("x", "y")], done=False), 1, PROTOCOL),
    "pseudo field in trailers": (lambda w: frame(DATA, b"abcde", 1) + w.open(1, [(":path", "/")]), 1, PROTOCOL),
    "capitals in trailers": (lambda w: frame(DATA, b"abcde", 1) + w.open(1, [("X", "y")]), 1, PROTOCOL),
    "connection in trailers": (lambda w: frame(DATA, b"abcde", 1) + w.open(1, [("connection", "x")]), 1, PROTOCOL),
    "CRLF in trailers": (lambda w: frame(DATA, b"abcde", 1) + w.open(1, [("x", "y\r\nz: a")]), 1, PROTOCOL),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAM_ERRORS)
async def test_a_stream_error_ends_only_its_stream(stage: Stage, name: str) -> None:
    whole = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        whole.append(request.line)
        if request.line.startswith("GET"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    await stage.serving(handler)
    make, stream, code = STREAM_ERRORS[name]
    wire = Wire(await stage.connect())
    head = wire.open(1, [*POST, ("content-length", "5")], done=False)
    seen = await wire.send(head, make(wire), wire.open(3)).until(1, 3)
    assert (seen.resets, seen.goaway) == ({stream: code}, None)
    assert seen.bodies == {3: b"ok"}
    await eventually(lambda: not stage.gateway.requests)
    assert "GET / HTTP/1.1" in whole


CONNECTION_ERRORS: dict[str, tuple[Frames, int]] = {
    "DATA without a stream": (lambda _: frame(DATA, b"x"), PROTOCOL),
    "HEADERS without a stream": (lambda w: frame(HEADERS, w.block(GET), 0, END_HEADERS), PROTOCOL),
    "PRIORITY without a stream": (lambda _: frame(PRIORITY, bytes(5)), PROTOCOL),
    "RST_STREAM without a stream": (lambda _: frame(RST_STREAM, bytes(4)), PROTOCOL),
    "CONTINUATION without HEADERS": (lambda _: frame(CONTINUATION, b"", 1, END_HEADERS), PROTOCOL),
    "SETTINGS on a stream": (lambda _: frame(SETTINGS, b"", 1), PROTOCOL),
    "PING on a stream": (lambda _: frame(PING, bytes(8), 1), PROTOCOL),
    "GOAWAY on a stream": (lambda _: frame(GOAWAY, bytes(8), 1), PROTOCOL),
    "PUSH_PROMISE of a client": (lambda _: frame(PUSH_PROMISE, bytes(4), 1, END_HEADERS), PROTOCOL),
    "DATA on an idle stream": (lambda _: frame(DATA, b"x", 9), PROTOCOL),
    "RST_STREAM on an idle stream": (lambda _: frame(RST_STREAM, bytes(4), 9), PROTOCOL),
    "WINDOW_UPDATE on an idle stream": (lambda _: frame(WINDOW_UPDATE, b"\0\0\0\1", 9), PROTOCOL),
    "an even stream": (lambda w: w.open(2), PROTOCOL),
    "a stream lower than one before": (lambda w: w.open(5) + w.open(3), PROTOCOL),
    "WINDOW_UPDATE by nothing": (lambda _: frame(WINDOW_UPDATE, bytes(4)), PROTOCOL),
    "WINDOW_UPDATE beyond the largest window": (lambda _: frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff"), FLOW),
    "PING of another length": (lambda _: frame(PING, bytes(7)), SIZE),
    "RST_STREAM of another length": (lambda _: frame(RST_STREAM, bytes(5), 1), SIZE),
    "WINDOW_UPDATE of another length": (lambda _: frame(WINDOW_UPDATE, bytes(5)), SIZE),
    "SETTINGS of another length": (lambda _: frame(SETTINGS, bytes(5)), SIZE),
    "SETTINGS that acknowledge and set": (lambda _: frame(SETTINGS, bytes(6), 0, 1), SIZE),
    "GOAWAY of another length": (lambda _: frame(GOAWAY, bytes(7)), SIZE),
    "a frame that is too long": (lambda _: frame(DATA, bytes(16_385), 1), SIZE),
    "HEADERS too short for its priority": (lambda _: frame(HEADERS, bytes(4), 3, END_HEADERS | 0x20), SIZE),
    "ENABLE_PUSH that is neither 0 nor 1": (lambda _: frame(SETTINGS, b"\0\2\0\0\0\2"), PROTOCOL),
    "INITIAL_WINDOW_SIZE beyond the largest": (lambda _: frame(SETTINGS, b"\0\4\x80\0\0\0"), FLOW),
    "MAX_FRAME_SIZE too small": (lambda _: frame(SETTINGS, b"\0\5\0\0\0\1"), PROTOCOL),
    "padding longer than DATA": (lambda _: frame(DATA, b"\5abc", 1, PADDED), PROTOCOL),
    "padding longer than HEADERS": (lambda _: frame(HEADERS, b"\5abc", 3, END_HEADERS | PADDED), PROTOCOL),
    "an interrupted header block": (lambda _: frame(HEADERS, b"", 3, END_STREAM) + frame(PING, bytes(8)), PROTOCOL),
    "a header block continued on another stream": (
        lambda _: frame(HEADERS, b"", 3, END_STREAM) + frame(CONTINUATION, b"", 5, END_HEADERS), PROTOCOL),
    "an unknown frame in a header block": (
        lambda _: frame(HEADERS, b"", 3, END_STREAM) + frame(0xBE, b"", 3), PROTOCOL),
    "a header block that cannot be read": (lambda _: frame(HEADERS, b"\xff\xff\xff", 3, END_HEADERS), COMPRESSION),
    "an index beyond the table": (lambda _: frame(HEADERS, b"\xfe", 3, END_HEADERS), COMPRESSION),
    "a table larger than allowed": (lambda _: frame(HEADERS, b"\x3f\xe1\xff\x03", 3, END_HEADERS), COMPRESSION),
}  # fmt: skip


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
async def test_a_connection_error_is_reported_and_ends_the_connection(stage: Stage, name: str) -> None:
    await stage.serving()
    make, code = CONNECTION_ERRORS[name]
    wire = Wire(await stage.connect())
    seen = await wire.send(wire.open(1, POST, done=False), make(wire)).until()
    assert (seen.goaway, seen.closed) == (code, True)
    wire.client.close()
    await eventually(lambda: not stage.gateway.requests and not stage.gateway.connections)


@pytest.mark.parametrize("first", [frame(PING, bytes(8)), frame(SETTINGS, b"", 0, 1), b"\xff" * 20_000])
async def test_a_connection_begins_with_settings(stage: Stage, first: bytes) -> None:
    client = await stage.connect()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + first)
    rest = await client.closed()
    assert b"\0\0\x08\x07\0" in rest, "GOAWAY"


IGNORED: dict[str, Frames] = {
    "unknown type": lambda _: frame(0xBE, b"grease"),
    "unknown type on an idle stream": lambda _: frame(0xBE, b"grease", 99),
    "unknown flags": lambda w: frame(HEADERS, w.block(GET), 9, 0xD7 & ~0x28 | END_HEADERS | END_STREAM),
    "unknown setting": lambda _: frame(SETTINGS, b"\xff\xff\0\0\0\1"),
    "PRIORITY of an idle stream": lambda _: frame(PRIORITY, b"\0\0\0\0\x10", 99),
    "a stream that depends on itself": lambda w: frame(
        HEADERS, b"\0\0\0\x09\x10" + w.block(GET), 9, END_HEADERS | END_STREAM | 0x20),
    "RST_STREAM of a closed stream": lambda w: w.open(9, with_field(":authority", "x")) + 2 * frame(
        RST_STREAM, bytes(4), 9),
    "WINDOW_UPDATE of a closed stream": lambda w: w.open(9, with_field(":authority", "x")) + frame(
        WINDOW_UPDATE, b"\0\0\0\1", 9),
    "padding": lambda w: frame(HEADERS, b"\2" + w.block(GET) + b"\0\0", 9, END_HEADERS | END_STREAM | PADDED),
    "a header block in three": lambda w: frame(HEADERS, b"\x82", 9, END_STREAM) + frame(
        CONTINUATION, b"\x84\x86", 9) + frame(CONTINUATION, w.block(GET[3:]), 9, END_HEADERS),
    "empty DATA": lambda w: frame(DATA, b"", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", IGNORED)
async def test_what_must_be_ignored_or_taken_disturbs_nothing(stage: Stage, name: str) -> None:
    await stage.serving()
    wire = Wire(await stage.connect())
    wire.send(wire.open(1, POST, done=False), IGNORED[name](wire), frame(DATA, b"", 1, END_STREAM))
    seen = await wire.send(wire.open(11)).until(1, 11)
    assert (seen.resets, seen.goaway) == ({}, None)
    assert [seen.heads[stream][":status"] for stream in (1, 11)] == ["200", "200"]


async def test_streams_beyond_the_limit_are_refused_and_the_others_go_on(stage: Stage) -> None:
    hold = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await hold.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await stage.serving(handler)
    wire = Wire(await stage.connect())
    numbers = range(1, 2 * MAX_STREAMS + 20, 2)
    # The last one sends a body before it can know that it was refused.
    wire.send(*(wire.open(number) for number in numbers[:-1]), wire.open(numbers[-1], POST, done=False))
    wire.send(frame(DATA, b"body", numbers[-1], END_STREAM))
    seen = await wire.until(numbers[-1])
    hold.set()
    seen = await wire.until(*numbers)
    refused = {number: int(ErrorCodes.REFUSED_STREAM) for number in numbers[MAX_STREAMS:]}
    assert {**seen.resets, numbers[-1]: ErrorCodes.REFUSED_STREAM} == refused
    assert (len(seen.whole), seen.goaway) == (MAX_STREAMS, None)


async def test_cancelling_a_stream_that_is_already_answered_disturbs_no_other_stream(stage: Stage) -> None:
    hold = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await hold.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await stage.serving(handler)
    wire = Wire(await stage.connect())
    wire.send(wire.open(1))
    await eventually(lambda: stage.gateway.requests)
    for number, fields in (
        (3, with_field(":authority", "nowhere")),
        (5, [*GET, ("expect", "cake")]),
        (7, with_field(":authority", "a:b")),
    ):
        wire.send(wire.open(number, fields), frame(RST_STREAM, b"\0\0\0\x08", number))
    stage.gateway.revision("default/app-00001").breaker.depth = 0
    stage.endpoints()
    wire.send(wire.open(9), frame(RST_STREAM, b"\0\0\0\x08", 9), wire.open(11, with_field(":authority", "x")))
    await wire.until(11)
    hold.set()
    seen = await wire.until(1)
    assert (seen.bodies[1], seen.goaway) == (b"ok", None)


async def test_a_client_that_sends_goaway_still_gets_its_responses(stage: Stage) -> None:
    hold = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await hold.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await stage.serving(handler)
    wire = Wire(await stage.connect())
    wire.send(wire.open(1))
    await eventually(lambda: stage.gateway.requests)
    wire.send(frame(GOAWAY, bytes(8)), frame(PING, bytes(8)))
    while (got := await wire.read()) is not None and got.kind != PING:
        pass
    hold.set()
    assert (await wire.until(1)).bodies == {1: b"ok"}


async def test_bodies_of_reset_streams_do_not_use_up_the_connection(stage: Stage) -> None:
    """What was held for a reset stream counts as read."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader, body=False)
        await asyncio.Event().wait()

    stage.route()  # no instance: bodies wait unread
    wire = Wire(await stage.connect())
    body = b"".join(frame(DATA, bytes(16_000), 0) for _ in range(15))
    for number in range(1, 200, 2):
        numbered = body.replace(frame(DATA, b"", 0)[3:9] + bytes(0), frame(DATA, b"", number)[3:9])
        wire.send(wire.open(number, POST, done=False), numbered, frame(RST_STREAM, bytes(4), number))
        await wire.client.writer.drain()
    window = 65_535 - 100 * 15 * 16_000
    while window < 8_000_000:
        got = await wire.read()
        assert got is not None
        if got.kind == WINDOW_UPDATE and not got.stream:
            window += int.from_bytes(got.payload)
    await eventually(lambda: not stage.gateway.requests)
