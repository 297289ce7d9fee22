"""RFC 9113, section by section: what the gateway itself sends to a client. See test_rfc9113.py."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator

import pytest

from activator.frontend.http2_server import MAX_STREAMS
from activator.frontend.limits import END_SECONDS
from activator.frontend.listeners import Listeners, bind
from activator.sync.certificates import _with_certificate
from activator.wire.http2_codec import MAX_HEADER_LIST
from activator.wire.http2_errors import ErrorCode, Setting
from activator.wire.http2_frames import ACK, DATA, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE
from activator.wire.http2_protocol import STREAM_WINDOW
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.h2_wire import END_HEADERS, END_STREAM, POST, Wire, frame, with_field
from tests.component.activator.stage import HOST, Connection, Stage, read_request
from tests.component.activator.test_config_watch import certificate, secret
from tests.waiting import eventually

pytestmark = OVER_CODECS
SECTIONS = {"3.2", "5.2.2", "6.5.3", "6.9.3", "8.4", "8.7", "9.1", "9.2"}
"""Sections that are tested here alone."""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with as many bytes as the path says; never if it is `/wait`."""
    while True:
        request = await read_request(reader)
        path = request.line.split(" ")[1]
        if path == "/wait":
            await reader.read()
            return
        size = int(path[1:]) if path[1:].isdigit() else 2
        fields = f"Connection: keep-alive\r\nKeep-Alive: timeout=9\r\nX-App: 1\r\nContent-Length: {size}"
        head = f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"
        writer.write(head.encode() + (b"" if request.line.startswith("HEAD") else bytes(size)))


def sized(size: int) -> list[tuple[str, str]]:
    return with_field(":path", f"/{size}")


@pytest.fixture
async def wire(stage: Stage) -> Wire:
    await stage.serving(answer)
    return Wire(await stage.connect())


async def test_the_first_frame_is_settings_and_the_clients_are_acknowledged(wire: Wire) -> None:
    """Sections 3.4, 6.5.3; the values of 6.5.2."""
    first = await wire.read()
    assert first is not None
    assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    pairs = [first.payload[at : at + 6] for at in range(0, len(first.payload), 6)]
    assert {int.from_bytes(pair[:2]): int.from_bytes(pair[2:]) for pair in pairs}.items() >= {
        Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS, Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST, Setting.ENABLE_PUSH: 0,
    }.items()  # fmt: skip
    wire.send(frame(SETTINGS), frame(SETTINGS), frame(PING, b"12345678"))
    acknowledged = 0
    while (got := await wire.read()) is not None and got.kind != PING:
        acknowledged += got.kind == SETTINGS and got.flags == ACK
    assert acknowledged == 3
    assert got is not None
    assert (got.flags, got.payload) == (ACK, b"12345678")


async def test_no_more_is_sent_than_the_windows_allow(stage: Stage) -> None:
    """Sections 5.2.2, 6.9.1, 6.9.2."""
    await stage.serving(answer)
    wire = Wire(await stage.connect(), settings=b"\0\4\0\0\0\x0a")
    wire.send(wire.open(1, sized(30)))
    seen = await wire.until_bytes(10)
    assert len(seen.bodies[1]) == 10
    seen = await wire.send(frame(WINDOW_UPDATE, b"\0\0\0\5", 1)).until_bytes(15)
    assert len(seen.bodies[1]) == 15
    # The initial size changes open windows too.
    seen = await wire.send(frame(SETTINGS, b"\0\4\0\0\0\x0c")).until_bytes(17)
    assert len(seen.bodies[1]) == 17
    seen = await wire.send(frame(WINDOW_UPDATE, b"\0\0\0\x64", 1)).until(1)
    assert (len(seen.bodies[1]), seen.whole) == (30, {1})


async def test_a_window_that_became_negative_is_waited_for(stage: Stage) -> None:
    """Section 6.9.3."""
    await stage.serving(answer)
    wire = Wire(await stage.connect(), settings=b"\0\4\0\0\0\x0a")
    seen = await wire.send(wire.open(1, sized(30))).until_bytes(10)
    assert len(seen.bodies[1]) == 10
    seen = await wire.send(frame(SETTINGS, b"\0\4\0\0\0\0"), frame(WINDOW_UPDATE, b"\0\0\0\x0a", 1)).settle()
    assert len(seen.bodies[1]) == 10
    seen = await wire.send(frame(WINDOW_UPDATE, b"\0\0\0\x01", 1)).until_bytes(11)
    assert len(seen.bodies[1]) == 11
    assert (await wire.send(frame(SETTINGS, b"\0\4\0\1\0\0")).until(1)).whole == {1}


async def test_all_streams_together_stay_below_the_connections_window(wire: Wire) -> None:
    """Section 6.9.1."""
    wire.send(frame(SETTINGS, b"\0\4\0\1\0\0"), *(wire.open(number, sized(40_000)) for number in (1, 3, 5)))
    seen = await wire.until_bytes(65_535)
    assert sum(map(len, seen.bodies.values())) == 65_535
    seen = await wire.send(frame(WINDOW_UPDATE, b"\0\1\0\0")).until(1, 3, 5)
    assert sum(map(len, seen.bodies.values())) == 120_000


@pytest.mark.parametrize(("announced", "longest"), [(16_384, 16_384), (65_536, 65_536)])
async def test_frames_are_no_longer_than_the_client_allows(stage: Stage, announced: int, longest: int) -> None:
    """Sections 4.2, 6.5.2."""
    await stage.serving(answer)
    big = b"\0\4\0\x0f\0\0\0\5" + announced.to_bytes(4, "big")
    wire = Wire(await stage.connect(), settings=big)
    wire.send(frame(WINDOW_UPDATE, b"\0\x0f\0\0"), wire.open(1, sized(300_000)))
    sizes = []
    while len(wire.seen.bodies.get(1, b"")) < 300_000:
        got = await wire.read()
        assert got is not None
        sizes.append(len(got.payload))
        wire.take(got)
    assert max(sizes) <= longest


async def test_a_client_may_forbid_the_compression_table(stage: Stage) -> None:
    """Sections 4.3.1, 6.5.2: with a table of 0 bytes, no field may refer to an earlier one."""
    await stage.serving(answer)
    wire = Wire(await stage.connect(), settings=b"\0\1\0\0\0\0")
    wire.decoder.max_allowed_table_size = 0
    for number in (1, 3):
        seen = await wire.send(wire.open(number)).until(number)
        assert (seen.heads[number][":status"], seen.heads[number]["x-app"]) == ("200", "1")
    assert not wire.decoder.header_table.dynamic_entries


async def test_the_compression_table_does_not_grow_to_what_a_client_allows(wire: Wire) -> None:
    """Section 4.3.1: the table takes memory here too."""
    wire.decoder.max_allowed_table_size = 2**32 - 1
    seen = await wire.send(frame(SETTINGS, b"\0\1\xff\xff\xff\xff"), wire.open(1)).until(1)
    assert seen.heads[1][":status"] == "200"
    assert wire.decoder.header_table_size <= 4096


async def test_a_response_has_fields_of_http_2_alone(wire: Wire) -> None:
    """Sections 8.2, 8.2.2, 8.3.2."""
    seen = await wire.send(wire.open(1)).until(1)
    names = list(seen.heads[1])
    assert names[0] == ":status"
    assert [name for name in names if name != name.lower() or name in ("connection", "keep-alive")] == []
    assert seen.heads[1]["content-length"] == "2"


async def test_a_response_without_a_body_ends_with_its_head(wire: Wire) -> None:
    """Section 8.1."""
    wire.send(wire.open(1, with_field(":method", "HEAD")))
    while (got := await wire.read()) is not None and got.kind != HEADERS:
        pass
    assert got is not None
    assert got.flags & (END_STREAM | END_HEADERS) == END_STREAM | END_HEADERS


async def test_a_response_that_is_whole_before_the_request_is_followed_by_a_reset(stage: Stage) -> None:
    """Section 8.1: with NO_ERROR, and behind the response."""
    await stage.serving(answer)
    wire = Wire(await stage.connect())
    seen = await wire.send(wire.open(1, with_field(":authority", "nowhere", POST), done=False)).until(1)
    assert (seen.heads[1][":status"], 1 in seen.whole) == ("404", True)
    await wire.settle()
    assert wire.seen.resets == {1: ErrorCode.NO_ERROR}


async def test_a_whole_body_without_its_end_is_not_reset_at_once(stage: Stage) -> None:
    """Section 8.1: a client that sends END_STREAM after the response, as httpcore may, fails if there was a reset."""
    await stage.serving()
    wire = Wire(await stage.connect())
    post = [*POST, ("content-length", "3")]
    wire.send(wire.open(1, post, done=False), frame(DATA, b"abc", 1))
    seen = await wire.send(wire.open(3, post, done=False), frame(DATA, b"abc", 3)).until(1, 3)
    assert [seen.heads[stream][":status"] for stream in (1, 3)] == ["200", "200"]
    seen = await wire.send(frame(DATA, b"", 1, END_STREAM)).settle()
    assert (seen.resets, seen.goaway) == ({}, None)
    (connection,) = stage.gateway.connections
    connection.sweep(stage.gateway.time() + END_SECONDS + 1)
    seen = await wire.settle()
    assert (seen.resets, seen.goaway) == ({3: ErrorCode.NO_ERROR}, None), "the one whose end never came"


async def test_nothing_is_pushed(wire: Wire) -> None:
    """Section 8.4."""
    wire.send(frame(SETTINGS, b"\0\2\0\0\0\1"), wire.open(1), frame(PING, b"12345678"))
    kinds = set()
    while (got := await wire.read()) is not None and not (got.kind == PING and got.flags):
        kinds.add(got.kind)
    assert kinds <= {SETTINGS, HEADERS, DATA, WINDOW_UPDATE}


async def test_a_refused_stream_did_not_reach_the_instance(stage: Stage) -> None:
    """Section 8.7: REFUSED_STREAM says that a request may be sent again."""
    lines = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append((await read_request(reader)).line)
        await reader.read()

    await stage.serving(handler)
    wire = Wire(await stage.connect())
    last = 2 * MAX_STREAMS + 1
    wire.send(*(wire.open(number) for number in range(1, last, 2)), wire.open(last, sized(7)))
    seen = await wire.until(last)
    assert seen.resets == {last: ErrorCode.REFUSED_STREAM}
    await eventually(lambda: len(lines) == MAX_STREAMS)
    assert set(lines) == {"GET / HTTP/1.1"}


async def test_goaway_names_the_last_stream(stage: Stage) -> None:
    """Sections 5.4.1, 6.8."""
    await stage.serving(answer)
    wire = Wire(await stage.connect())
    await wire.send(wire.open(5), wire.open(9)).until(5, 9)
    wire.send(frame(PING, bytes(8), 1))
    while (got := await wire.read()) is not None and got.kind != GOAWAY:
        pass
    assert got is not None
    assert (int.from_bytes(got.payload[:4]), int.from_bytes(got.payload[4:8])) == (9, ErrorCode.PROTOCOL_ERROR)


async def test_a_connection_serves_many_requests(wire: Wire) -> None:
    """Section 9.1."""
    for number in range(1, 41, 2):
        assert (await wire.send(wire.open(number)).until(number)).heads[number][":status"] == "200"


@pytest.fixture
async def tls(stage: Stage) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """A port for HTTPS, and a client's context that trusts it."""
    pair = certificate(HOST)
    context = _with_certificate(secret(pair))
    assert context is not None
    listeners, listener = Listeners(stage.gateway), bind("127.0.0.1", 0)
    await listeners.open([listener], tls=context)
    yield listener.getsockname()[1], ssl.create_default_context(cadata=pair[0].decode())
    listeners.close()


@pytest.mark.parametrize(("offered", "selected"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)])
async def test_http_2_over_tls_is_selected_by_alpn(
    stage: Stage, tls: tuple[int, ssl.SSLContext], offered: list[str], selected: str | None
) -> None:
    """Sections 3.2, 9.2."""
    await stage.serving(answer)
    port, context = tls
    context.set_alpn_protocols(offered)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == selected
    client = Connection(reader, writer)
    if selected == "h2":
        wire = Wire(client)
        assert (await wire.send(wire.open(1)).until(1)).heads[1][":status"] == "200"
    else:
        assert (await client.get().answer()).status == 200
    writer.close()


async def test_tls_older_than_1_2_is_refused(tls: tuple[int, ssl.SSLContext]) -> None:
    """Section 9.2."""
    port, context = tls
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
