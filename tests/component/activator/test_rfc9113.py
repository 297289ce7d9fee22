"""RFC 9113, section by section: what a client may send, and the responses to violations.

Each case is sent behind the head of a POST on stream 1, unless it is about the connection's first bytes. `SECTIONS` has
every section that concerns a server; test_rfc9113_sent.py has those about what the gateway itself sends.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from activator.frontend.http2_server import MAX_STREAMS
from activator.wire.http2_codec import MAX_HEADER_LIST
from activator.wire.http2_errors import ErrorCode
from activator.wire.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
)
from tests.component.activator import test_rfc9113_sent
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.h2_wire import END_HEADERS, END_STREAM, GET, POST, Wire, frame, with_field
from tests.component.activator.stage import HOST, Stage
from tests.waiting import eventually

pytestmark = OVER_CODECS
UNKNOWN = 0xBE
WHOLE = END_STREAM | END_HEADERS
END = frame(DATA, b"", 1, END_STREAM)
"""The end of the POST."""
Frames = Callable[[Wire], bytes]


@dataclass(frozen=True)
class Case:
    """What is sent behind the head of a POST, and what happens."""

    section: str
    name: str
    frames: Frames
    answered: tuple[int, ...] = ()
    """Streams that get a 200."""
    stream: tuple[int, int] | None = None
    """A stream, and the code of its reset: a stream error."""
    connection: int | None = None
    """The code of GOAWAY: a connection error."""


def taken(section: str, name: str, frames: Frames, *answered: int) -> Case:
    return Case(section, name, frames, answered=answered)


def ends_stream(section: str, name: str, code: int, frames: Frames, stream: int = 1) -> Case:
    return Case(section, name, frames, stream=(stream, code))


def ends_connection(section: str, name: str, code: int, frames: Frames) -> Case:
    return Case(section, name, frames, connection=code)


def setting(number: int, value: int) -> bytes:
    return frame(SETTINGS, number.to_bytes(2, "big") + value.to_bytes(4, "big"))


def malformed(section: str, name: str, fields: list[tuple[str, str]]) -> Case:
    return ends_stream(section, name, ErrorCode.PROTOCOL_ERROR, lambda w: w.open(3, fields), 3)


CASES = (
    # 4: frames
    taken("4.1", "undefined flags are ignored", lambda w: frame(HEADERS, w.block(GET), 3, WHOLE | 0x92) + END, 1, 3),
    taken("4.1", "the reserved bit is ignored", lambda w: frame(HEADERS, w.block(GET), 3 | 1 << 31, WHOLE) + END, 1, 3),
    taken("4.1", "unknown types are ignored", lambda _: frame(UNKNOWN, b"x", 1) + END, 1),
    taken("4.2", "a frame of 16384 bytes", lambda _: frame(DATA, bytes(16_384), 1, END_STREAM), 1),
    ends_connection(
        "4.2", "a longer frame", ErrorCode.FRAME_SIZE_ERROR, lambda _: frame(DATA, bytes(16_385), 1)),
    ends_connection(
        "4.2", "a longer frame of an unknown type", ErrorCode.FRAME_SIZE_ERROR,
        lambda _: frame(UNKNOWN, bytes(16_385))),
    taken("4.3", "a field block in several frames", lambda w: b"".join(
        frame(CONTINUATION if at else HEADERS, w.block(GET[at:at + 1]), 3, 0 if at < 3 else END_HEADERS) if at
        else frame(HEADERS, w.block(GET[:1]), 3, END_STREAM) for at in range(4)) + END, 1, 3),
    ends_connection(
        "4.3", "a field block that cannot be read", ErrorCode.COMPRESSION_ERROR,
        lambda _: frame(HEADERS, b"\x40", 3, WHOLE)),
    ends_connection(
        "4.3.1", "a table beyond SETTINGS_HEADER_TABLE_SIZE", ErrorCode.COMPRESSION_ERROR,
        lambda w: frame(HEADERS, b"\x3f\xe2\x1f" + w.block(GET), 3, WHOLE)),
    taken("4.3.1", "a smaller table", lambda w: frame(HEADERS, b"\x20" + w.block(GET[:3]) +
        b"\x01" + bytes([len(HOST)]) + HOST.encode(), 3, WHOLE) + END, 1, 3),
    # 5: streams
    ends_connection("5.1", "DATA on an idle stream", ErrorCode.PROTOCOL_ERROR, lambda _: frame(DATA, b"x", 3)),
    ends_connection(
        "5.1", "RST_STREAM on an idle stream", ErrorCode.PROTOCOL_ERROR, lambda _: frame(RST_STREAM, bytes(4), 3)),
    ends_connection(
        "5.1", "WINDOW_UPDATE on an idle stream", ErrorCode.PROTOCOL_ERROR,
        lambda _: frame(WINDOW_UPDATE, b"\0\0\0\1", 3)),
    taken("5.1", "PRIORITY on an idle stream", lambda _: frame(PRIORITY, bytes(5), 3) + END, 1),
    ends_stream("5.1", "DATA on a half-closed stream", ErrorCode.STREAM_CLOSED,
                lambda w: w.open(3, with_field(":path", "/wait")) + frame(DATA, b"x", 3), 3),
    ends_stream("5.1", "HEADERS on a half-closed stream", ErrorCode.STREAM_CLOSED,
                lambda w: w.open(3, with_field(":path", "/wait")) + w.open(3, [("x", "y")]), 3),
    taken("5.1", "WINDOW_UPDATE on a half-closed stream",
          lambda w: w.open(3) + frame(WINDOW_UPDATE, b"\0\0\0\1", 3) + END, 1, 3),
    taken("5.1", "PRIORITY, WINDOW_UPDATE and RST_STREAM on a closed stream",
          lambda w: w.open(3, with_field(":authority", "nowhere")) + frame(PRIORITY, bytes(5), 3)
          + frame(WINDOW_UPDATE, b"\0\0\0\1", 3) + frame(RST_STREAM, bytes(4), 3) + END, 1),
    ends_stream("5.1", "DATA on a stream that was reset", ErrorCode.STREAM_CLOSED,
                lambda _: frame(RST_STREAM, bytes(4), 1) + frame(DATA, b"x", 1)),
    ends_connection("5.1.1", "an even stream", ErrorCode.PROTOCOL_ERROR, lambda w: w.open(2)),
    ends_connection("5.1.1", "a stream below the last one", ErrorCode.PROTOCOL_ERROR, lambda w: w.open(9) + w.open(7)),
    ends_connection("5.1.1", "HEADERS on stream 0", ErrorCode.PROTOCOL_ERROR, lambda w: w.open(0)),
    taken("5.1.1", "streams that are left out", lambda w: w.open(5) + w.open(99) + END, 1, 5, 99),
    ends_stream("5.1.2", "a stream beyond the limit", ErrorCode.REFUSED_STREAM, lambda w: b"".join(
        w.open(number, with_field(":path", "/wait")) for number in range(3, 2 * MAX_STREAMS + 3, 2)),
        2 * MAX_STREAMS + 1),
    taken("5.2.1", "frames other than DATA have no window", lambda w: b"".join(
        w.open(number, [*GET, ("x", "y" * 900)]) for number in range(3, 203, 2)) + END, 1, 3, 201),
    taken("5.3.2", "priorities are ignored", lambda w: frame(HEADERS, b"\x80\0\0\x01\xff" + w.block(GET), 3,
          WHOLE | WITH_PRIORITY) + frame(PRIORITY, b"\x80\0\0\x03\0", 1) + END, 1, 3),
    taken("5.3.2", "a stream that depends on itself", lambda w: frame(
        HEADERS, b"\0\0\0\3\0" + w.block(GET), 3, WHOLE | WITH_PRIORITY) + END, 1, 3),
    taken("5.4.3", "the end of the connection without GOAWAY", lambda _: END, 1),
    taken("5.5", "unknown settings and types", lambda _: setting(0xFFFF, 1) + frame(UNKNOWN) + END, 1),
    ends_connection(
        "5.5", "an unknown type in a field block", ErrorCode.PROTOCOL_ERROR,
        lambda _: frame(HEADERS, b"", 3) + frame(UNKNOWN, b"", 3)),
    # 6: kinds of frames
    ends_connection("6.1", "DATA on stream 0", ErrorCode.PROTOCOL_ERROR, lambda _: frame(DATA, b"x")),
    taken("6.1", "padding", lambda _: frame(DATA, b"\3ab\0\0\0", 1, PADDED | END_STREAM), 1),
    taken("6.1", "nothing but padding", lambda _: frame(DATA, b"\3\0\0\0", 1, PADDED | END_STREAM), 1),
    taken("6.1", "an empty frame", lambda _: frame(DATA, b"", 1) + END, 1),
    ends_connection("6.1", "padding of the payload's length", ErrorCode.PROTOCOL_ERROR,
                    lambda _: frame(DATA, b"\4abc", 1, PADDED)),
    ends_connection("6.1", "no length of the padding", ErrorCode.PROTOCOL_ERROR, lambda _: frame(DATA, b"", 1, PADDED)),
    taken("6.2", "padding and priority", lambda w: frame(HEADERS, b"\2\0\0\0\0\1" + w.block(GET) + b"\0\0", 3,
          WHOLE | PADDED | WITH_PRIORITY) + END, 1, 3),
    ends_connection("6.2", "too long padding", ErrorCode.PROTOCOL_ERROR,
                    lambda _: frame(HEADERS, b"\x20\x82", 3, WHOLE | PADDED)),
    ends_connection("6.2", "another stream's frame in a field block", ErrorCode.PROTOCOL_ERROR,
                    lambda w: frame(HEADERS, w.block(GET), 3, END_STREAM) + END),
    ends_connection("6.3", "PRIORITY on stream 0", ErrorCode.PROTOCOL_ERROR, lambda _: frame(PRIORITY, bytes(5))),
    ends_stream("6.3", "PRIORITY of another length", ErrorCode.FRAME_SIZE_ERROR,
                lambda _: frame(PRIORITY, bytes(6), 1)),
    ends_connection("6.4", "RST_STREAM on stream 0", ErrorCode.PROTOCOL_ERROR, lambda _: frame(RST_STREAM, bytes(4))),
    ends_connection("6.4", "RST_STREAM of another length", ErrorCode.FRAME_SIZE_ERROR,
                    lambda _: frame(RST_STREAM, bytes(3), 1)),
    taken("6.4", "RST_STREAM with an unknown code", lambda w: w.open(3, with_field(":path", "/wait"))
          + frame(RST_STREAM, b"\xff\xff\xff\xff", 3) + w.open(5) + END, 1, 5),
    ends_connection("6.5", "SETTINGS on a stream", ErrorCode.PROTOCOL_ERROR, lambda _: frame(SETTINGS, b"", 1)),
    ends_connection("6.5", "an acknowledgement with a payload", ErrorCode.FRAME_SIZE_ERROR,
                    lambda _: frame(SETTINGS, bytes(6), 0, ACK)),
    ends_connection("6.5", "SETTINGS of another length", ErrorCode.FRAME_SIZE_ERROR,
                    lambda _: frame(SETTINGS, bytes(7))),
    taken("6.5.1", "the last value of a setting counts", lambda _: frame(
        SETTINGS, b"\0\5\0\0\x50\0\0\5\0\0\x40\0") + END, 1),
    ends_connection("6.5.2", "ENABLE_PUSH of 2", ErrorCode.PROTOCOL_ERROR, lambda _: setting(2, 2)),
    ends_connection("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", ErrorCode.FLOW_CONTROL_ERROR, lambda _: setting(4, 2**31)),
    ends_connection("6.5.2", "MAX_FRAME_SIZE of 16383", ErrorCode.PROTOCOL_ERROR, lambda _: setting(5, 16_383)),
    ends_connection("6.5.2", "MAX_FRAME_SIZE of 2^24", ErrorCode.PROTOCOL_ERROR, lambda _: setting(5, 2**24)),
    taken("6.5.2", "values at their bounds", lambda _: b"".join(
        (setting(1, 0), setting(1, 2**32 - 1), setting(2, 0), setting(2, 1), setting(3, 0), setting(4, 2**31 - 1),
         setting(5, 16_384), setting(5, 2**24 - 1), setting(6, 2**32 - 1))) + END, 1),
    ends_connection("6.6", "PUSH_PROMISE of a client", ErrorCode.PROTOCOL_ERROR,
                    lambda _: frame(PUSH_PROMISE, b"\0\0\0\2\x82", 1, END_HEADERS)),
    ends_connection("6.7", "PING on a stream", ErrorCode.PROTOCOL_ERROR, lambda _: frame(PING, bytes(8), 1)),
    ends_connection("6.7", "PING of another length", ErrorCode.FRAME_SIZE_ERROR, lambda _: frame(PING, bytes(9))),
    ends_connection("6.8", "GOAWAY on a stream", ErrorCode.PROTOCOL_ERROR, lambda _: frame(GOAWAY, bytes(8), 1)),
    taken("6.8", "streams go on after a client's GOAWAY", lambda _: frame(GOAWAY, bytes(8) + b"debug") + END, 1),
    ends_stream("6.9", "an increment of 0 on a stream", ErrorCode.PROTOCOL_ERROR,
                lambda _: frame(WINDOW_UPDATE, bytes(4), 1)),
    ends_connection("6.9", "an increment of 0 on the connection", ErrorCode.PROTOCOL_ERROR,
                    lambda _: frame(WINDOW_UPDATE, bytes(4))),
    ends_connection("6.9", "WINDOW_UPDATE of another length", ErrorCode.FRAME_SIZE_ERROR,
                    lambda _: frame(WINDOW_UPDATE, bytes(3), 1)),
    taken("6.9", "the increment's reserved bit is ignored", lambda _: frame(
        WINDOW_UPDATE, b"\x80\0\0\1", 1) + END, 1),
    ends_stream("6.9.1", "a stream's window beyond 2^31-1", ErrorCode.FLOW_CONTROL_ERROR,
                lambda _: frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff", 1)),
    ends_connection("6.9.1", "the connection's window beyond 2^31-1", ErrorCode.FLOW_CONTROL_ERROR,
                    lambda _: frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff")),
    ends_connection("6.9.2", "an initial window that lets another exceed 2^31-1", ErrorCode.FLOW_CONTROL_ERROR,
                    lambda _: frame(WINDOW_UPDATE, b"\x7f\xff\0\0", 1) + setting(4, 2**31 - 1)),
    ends_connection("6.10", "CONTINUATION on stream 0", ErrorCode.PROTOCOL_ERROR,
                    lambda _: frame(HEADERS, b"", 3) + frame(CONTINUATION)),
    ends_connection("6.10", "CONTINUATION after a whole field block", ErrorCode.PROTOCOL_ERROR,
                    lambda w: w.open(3) + frame(CONTINUATION, b"", 3, END_HEADERS)),
    ends_connection("6.10", "CONTINUATION after DATA", ErrorCode.PROTOCOL_ERROR,
                    lambda _: frame(DATA, b"x", 1) + frame(CONTINUATION, b"", 1, END_HEADERS)),
    taken("7", "an unknown code of GOAWAY", lambda _: frame(GOAWAY, bytes(4) + b"\xff\xff\xff\xff") + END, 1),
    # 8: HTTP
    taken("8.1", "trailers", lambda w: frame(DATA, b"x", 1) + w.open(1, [("x", "y")]), 1),
    ends_stream("8.1", "a second field block that does not end the stream", ErrorCode.PROTOCOL_ERROR,
                lambda w: w.open(1, [("x", "y")], done=False)),
    ends_stream("8.1", "pseudo-header fields in trailers", ErrorCode.PROTOCOL_ERROR,
                lambda w: w.open(1, [(":path", "/")])),
    malformed("8.1.1", "a length and no body", [*POST, ("content-length", "3")]),
    ends_stream("8.1.1", "a body longer than its length", ErrorCode.PROTOCOL_ERROR,
                lambda w: w.open(3, [*POST, ("content-length", "3")], done=False) + frame(DATA, b"four", 3), 3),
    ends_stream("8.1.1", "a body shorter than its length", ErrorCode.PROTOCOL_ERROR,
                lambda w: w.open(3, [*POST, ("content-length", "3")], done=False) + frame(DATA, b"x", 3, END_STREAM),
                3),
    *(malformed("8.2.1", f"byte {byte:#x} in a name", [*GET, (f"a{chr(byte)}", "x")])
      for byte in (0x00, 0x0A, 0x20, 0x3A, 0x41, 0x5A, 0x7F)),
    *(malformed("8.2.1", f"byte {byte:#x} in a value", [*GET, ("a", f"b{chr(byte)}c")]) for byte in (0x00, 0x0A, 0x0D)),
    *(malformed("8.2.1", f"{name} around a value", [*GET, ("a", value)])
      for name, value in (("a blank", "x "), ("a tab", "\tx"))),
    *(malformed("8.2.2", name, [*GET, (name, value)]) for name, value in (
        ("connection", "x"), ("proxy-connection", "x"), ("keep-alive", "x"), ("transfer-encoding", "chunked"),
        ("upgrade", "x"), ("te", "gzip"))),
    taken("8.2.2", "te: trailers", lambda w: w.open(3, [*GET, ("te", "trailers")]) + END, 1, 3),
    taken("8.2.3", "cookies in several fields",
          lambda w: w.open(3, [*GET, ("cookie", "a=b"), ("cookie", "c=d")]) + END, 1, 3),
    malformed("8.3", "a pseudo-header field behind another field", [("a", "b"), *GET]),
    malformed("8.3", "a pseudo-header field twice", [*GET, (":method", "GET")]),
    malformed("8.3", "an unknown pseudo-header field", [*GET, (":a", "b")]),
    *(malformed("8.3.1", f"no {name}", [field for field in GET if field[0] != name])
      for name in (":method", ":scheme", ":path")),
    malformed("8.3.1", "an empty path", with_field(":path", "")),
    malformed("8.3.1", "userinfo in the authority", with_field(":authority", f"me@{HOST}")),
    malformed("8.3.1", "host that differs from the authority", [*GET, ("host", "other")]),
    taken("8.3.1", "host in place of the authority", lambda w: w.open(3, [*GET[:3], ("host", HOST)]) + END, 1, 3),
    taken("8.3.1", "OPTIONS of the whole server", lambda w: w.open(
        3, [(":method", "OPTIONS"), (":path", "*"), *GET[2:]]) + END, 1, 3),
    malformed("8.3.2", "a response's field in a request", [*GET, (":status", "200")]),
    malformed("8.5", "CONNECT with a scheme and a path", with_field(":method", "CONNECT")),
    malformed("8.5", "CONNECT without an authority", [(":method", "CONNECT")]),
    malformed("8.6", "an upgrade", [*GET, ("upgrade", "websocket"), ("connection", "upgrade")]),
    # 10: security
    malformed("10.3", "a line break in the path", with_field(":path", "/\r\nx: y")),
    ends_connection("10.5.1", "a field block that is never whole", ErrorCode.ENHANCE_YOUR_CALM, lambda _: frame(
        HEADERS, b"", 3) + frame(CONTINUATION, bytes(16_000), 3) * 9),
    ends_connection("10.5.1", "fields far beyond the limit", ErrorCode.ENHANCE_YOUR_CALM, lambda _: frame(
        HEADERS, b"\x40\x01v\x7f\x81\x1e" + b"v" * 3968 + b"\xbe" * (2 * MAX_HEADER_LIST // 3968 + 1), 3, WHOLE)),
    taken("10.7", "padding is not charged to its user", lambda _: b"".join(
        frame(DATA, b"\x64" + bytes(200), 1, PADDED) for _ in range(1000)) + END, 1),
)  # fmt: skip

IDS = [f"{case.section}: {case.name}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
async def test_a_frame_is_taken_or_refused_as_its_section_says(stage: Stage, case: Case) -> None:
    with capture_logs() as events:
        await _check(stage, case)
    assert not [event for event in events if event["log_level"] == "error"]


async def _check(stage: Stage, case: Case) -> None:
    app = await stage.serving(test_rfc9113_sent.answer)
    wire = Wire(await stage.connect())
    wire.decoder.max_allowed_table_size = 2**32 - 1  # of 6.5.2's case
    wire.send(wire.open(1, POST, done=False), case.frames(wire))
    if case.connection is not None:
        seen = await wire.until()
        assert (seen.goaway, seen.closed) == (case.connection, True)
        wire.client.close()
        await eventually(lambda: not stage.gateway.requests and not stage.gateway.connections)
        return
    if case.stream is not None:
        number, code = case.stream
        seen = await wire.until(number)
        assert seen.resets == {number: code}
        if code == ErrorCode.REFUSED_STREAM:
            await eventually(lambda: app.connections >= MAX_STREAMS - 1)  # the others are still open
            return
        seen = await wire.send(wire.open(2 * MAX_STREAMS + 51)).until(2 * MAX_STREAMS + 51)
        assert (seen.heads[2 * MAX_STREAMS + 51][":status"], seen.goaway) == ("200", None)
        return
    seen = await wire.until(*case.answered)
    assert (seen.resets, seen.goaway) == ({}, None)
    assert [seen.heads[number][":status"] for number in case.answered] == ["200"] * len(case.answered)


@pytest.mark.parametrize("kind", [DATA, HEADERS])
async def test_frames_on_a_stream_that_both_sides_ended_end_the_connection(stage: Stage, kind: int) -> None:
    """Section 5.1, closed."""
    await stage.serving()
    wire = Wire(await stage.connect())
    await wire.send(wire.open(1)).until(1)
    await wire.settle()
    seen = await wire.send(frame(DATA, b"x", 1) if kind == DATA else wire.open(1, [("x", "y")])).until()
    assert (seen.resets, seen.goaway, seen.closed) == ({}, ErrorCode.STREAM_CLOSED, True)


FIRST_BYTES = {
    "SETTINGS is missing": (PREFACE + frame(PING, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "an acknowledgement first": (PREFACE + frame(SETTINGS, b"", 0, ACK), ErrorCode.PROTOCOL_ERROR),
    "a broken preface": (PREFACE[:-2] + b"xx" + frame(SETTINGS), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", FIRST_BYTES)
async def test_a_connection_begins_with_its_preface(stage: Stage, name: str) -> None:
    """Section 3.4."""
    await stage.serving()
    wire = Wire(await stage.connect(), preface=FIRST_BYTES[name][0])
    seen = await wire.until()
    assert (seen.goaway, seen.closed) == (FIRST_BYTES[name][1], True)


async def test_a_preface_may_arrive_byte_by_byte(stage: Stage) -> None:
    """Section 3.4."""
    await stage.serving()
    wire = Wire(await stage.connect(), preface=b"")
    data = PREFACE + frame(SETTINGS) + wire.open(1)
    for at in range(len(data)):
        wire.send(data[at : at + 1])
        await wire.client.writer.drain()
    assert (await wire.until(1)).heads[1][":status"] == "200"


SECTIONS = {
    "3.2": "test_rfc9113_sent", "3.3": "all of this", "3.4": "test_a_connection_begins_with_its_preface",
    "4.1": "", "4.2": "", "4.3": "", "4.3.1": "", "5.1": "", "5.1.1": "", "5.1.2": "", "5.2.1": "",
    "5.2.2": "test_rfc9113_sent", "5.3.2": "", "5.4.1": "each connection error", "5.4.2": "each stream error",
    "5.4.3": "", "5.5": "", "6.1": "", "6.2": "", "6.3": "", "6.4": "", "6.5": "", "6.5.1": "", "6.5.2": "",
    "6.5.3": "test_rfc9113_sent", "6.6": "", "6.7": "", "6.8": "", "6.9": "", "6.9.1": "", "6.9.2": "",
    "6.9.3": "test_rfc9113_sent", "6.10": "", "7": "", "8.1": "", "8.1.1": "", "8.2.1": "", "8.2.2": "", "8.2.3": "",
    "8.3": "", "8.3.1": "", "8.3.2": "", "8.4": "test_rfc9113_sent", "8.5": "", "8.6": "", "8.7": "test_rfc9113_sent",
    "9.1": "test_rfc9113_sent", "9.2": "test_rfc9113_sent", "10.3": "", "10.5": "test_floods", "10.5.1": "", "10.7": "",
}  # fmt: skip
"""Section to the test that is not one of `CASES`. Left out are sections without a rule for a server: 3.1, 5.2 and 5.3.1
(introductions), 8.8 (examples), 8.4.1 and 8.4.2 (nothing is pushed), and 10's advice to clients and caches."""


def test_every_section_that_concerns_a_server_has_a_case(codec: object) -> None:
    assert {case.section for case in CASES} == {section for section, elsewhere in SECTIONS.items() if not elsewhere}
    elsewhere = {section for section, name in SECTIONS.items() if name == "test_rfc9113_sent"}
    assert elsewhere == test_rfc9113_sent.SECTIONS
