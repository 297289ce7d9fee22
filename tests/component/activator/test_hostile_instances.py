"""Responses that must not reach a client unchanged: the client gets an error, and the next request is not affected."""

import asyncio
from typing import TypeAlias

import pytest
from structlog.testing import capture_logs

from activator.wire.http2_frames import (
    ACK,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from knoll.messages.routing import RequestPolicy
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.h2_wire import END_HEADERS, END_STREAM, frame
from tests.component.activator.stage import Stage, read_request
from tests.waiting import eventually

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
OK = b"HTTP/1.1 200 OK\r\n"

BEFORE_THE_HEAD: dict[str, bytes] = {
    "nothing": b"",
    "another protocol": b"\x15\x03\x01\x00\x02\x02\x46",
    "HTTP/2": frame(SETTINGS),
    "HTTP/0.9": b"<html>",
    "version 1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    "status with a sign": b"HTTP/1.1 +20 OK\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "CR in a value": OK + b"X: a\rSet-Cookie: b\r\n\r\n",
    "NUL in a value": OK + b"X: a\0b\r\n\r\n",
    "escape in a value": OK + b"X: \x1b[2J\r\n\r\n",
    "blank in a name": OK + b"X y: a\r\n\r\n",
    "blank before the colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "folded line": OK + b"X: a\r\n b\r\n\r\n",
    "no colon": OK + b"X\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "lengths in a list": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "huge length": OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding in a list": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunk that is none": OK + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n",
    "endless line of a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 5000,
    "endless head": OK + b"X: y\r\n" * 20_000,
    "endless interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 200,
    "switching unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}
AFTER_THE_HEAD: dict[str, bytes] = {
    "a shorter body": OK + b"Content-Length: 10\r\n\r\nhello",
    "a chunk too many bytes long": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n",
    "half a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "no last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "endless trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: " + b"a" * 20_000,
    "trailers with LF": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\nSet-Cookie: a\r\n\r\n",
}


def says(answer: bytes) -> "Hostile":
    return Hostile(answer)


class Hostile:
    """Answers `/hostile` with bytes, everything else properly."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            if request.line.startswith("GET /hostile "):
                writer.write(self.answer)
                return
            writer.write(OK + b"Content-Length: 5\r\n\r\nclean")


@pytest.mark.parametrize("name", BEFORE_THE_HEAD)
async def test_a_hostile_answer_is_a_502_and_the_next_request_is_clean(stage: Stage, name: str) -> None:
    await stage.serving(says(BEFORE_THE_HEAD[name]))
    client = await stage.connect()
    client.get("/hostile")
    while (answer := await client.answer()).status < 200:
        pass
    if "chunk" in name and answer.status == 200:
        assert not (await client.closed()).endswith(b"0\r\n\r\n")
        client = await stage.connect()
    else:
        assert answer.status == 502
        assert answer.text.startswith("the connection to the instance failed: ")
    for _ in range(2):
        assert (await client.get("/clean").answer()).text == "clean"


@pytest.mark.parametrize("name", AFTER_THE_HEAD)
async def test_a_body_that_breaks_is_not_made_to_look_whole(stage: Stage, name: str) -> None:
    await stage.serving(says(AFTER_THE_HEAD[name]))
    client = await stage.connect()
    status, fields = await client.get("/hostile").head()
    if status == 502:  # head and fault came together
        got = await client.reader.readexactly(int(fields["content-length"]))
    else:
        got = await client.closed()
        assert not got.endswith(b"0\r\n\r\n")
    assert b"Set-Cookie" not in got
    assert (await (await stage.connect()).get("/clean").answer()).text == "clean"


LENGTH5 = b"\x88\x0f\x0d\x015"
OF_HTTP2: dict[str, tuple[bytes, bool]] = {
    "no status": (frame(HEADERS, b"\x00\x01x\x01y", 1, END_HEADERS | END_STREAM), True),
    "two statuses": (frame(HEADERS, b"\x88\x88", 1, END_HEADERS | END_STREAM), True),
    "status 999": (frame(HEADERS, b"\x08\x03999", 1, END_HEADERS | END_STREAM), True),
    "status of four digits": (frame(HEADERS, b"\x08\x042000", 1, END_HEADERS | END_STREAM), True),
    "101": (frame(HEADERS, b"\x08\x03101", 1, END_HEADERS), True),
    "1xx that ends the stream": (frame(HEADERS, b"\x08\x03100", 1, END_HEADERS | END_STREAM), True),
    "CRLF in a value": (frame(HEADERS, b"\x88\x00\x01x\x0ay\r\nset: a\r\n", 1, END_HEADERS | END_STREAM), True),
    "colon in a name": (frame(HEADERS, b"\x88\x00\x03a:b\x01y", 1, END_HEADERS | END_STREAM), True),
    "blank in a name": (frame(HEADERS, b"\x88\x00\x03a b\x01y", 1, END_HEADERS | END_STREAM), True),
    "a body before the head": (frame(DATA, b"hello", 1, END_STREAM), True),
    "length without a body": (frame(HEADERS, LENGTH5, 1, END_HEADERS | END_STREAM), True),
    "length that is no number": (frame(HEADERS, b"\x88\x0f\x0d\x02+5", 1, END_HEADERS | END_STREAM), True),
    "two lengths": (frame(HEADERS, LENGTH5 + b"\x0f\x0d\x016", 1, END_HEADERS | END_STREAM), True),
    "a longer body": (frame(HEADERS, LENGTH5, 1, END_HEADERS) + frame(DATA, b"hello!", 1, END_STREAM), False),
    "a shorter body": (frame(HEADERS, LENGTH5, 1, END_HEADERS) + frame(DATA, b"hell", 1, END_STREAM), False),
    "trailers that do not end it": (
        frame(HEADERS, b"\x88", 1, END_HEADERS) + frame(HEADERS, b"\x00\x01x\x01y", 1, END_HEADERS), False),
    "status in trailers": (
        frame(HEADERS, b"\x88", 1, END_HEADERS) + frame(HEADERS, b"\x88", 1, END_HEADERS | END_STREAM), False),
    "reset": (frame(RST_STREAM, b"\0\0\0\2", 1), True),
    "goaway after it looked at the request": (
        frame(GOAWAY, b"\0\0\0\1\0\0\0\2") + frame(RST_STREAM, bytes(4), 1), True),
    "push": (frame(PUSH_PROMISE, b"\0\0\0\2\x88", 1, END_HEADERS), True),
    "no frames": (b"HTTP/1.1 400 Bad Request\r\n\r\n", True),
    "a flood of PING": (frame(PING, bytes(8)) * 20_000, True),
    "a flood of SETTINGS": (frame(SETTINGS) * 20_000, True),
    "a flood of empty DATA": (frame(HEADERS, b"\x88", 1, END_HEADERS) + frame(DATA, b"", 1) * 20_000, False),
    "a flood of WINDOW_UPDATE": (frame(WINDOW_UPDATE, b"\0\0\0\1") * 20_000, True),
    "a flood of 1xx": (frame(HEADERS, b"\x08\x03103", 1, END_HEADERS) * 5000, True),
    "a bomb of fields": (frame(HEADERS, b"\x88" + b"\x40\x00\x00" * 5000, 1, END_HEADERS | END_STREAM), True),
}  # fmt: skip


UNREADABLE = {
    "no status", "two statuses", "status of four digits", "colon in a name", "blank in a name",
    "length that is no number", "two lengths",
}  # fmt: skip


@OVER_CODECS
@pytest.mark.parametrize("name", OF_HTTP2)
async def test_a_hostile_http_2_response_fails_only_its_request(stage: Stage, name: str) -> None:
    bytes_, before_the_head = OF_HTTP2[name]
    turn = 0

    async def handler(reader: Reader, writer: Writer) -> None:
        nonlocal turn
        await reader.readexactly(len(PREFACE))
        writer.write(frame(SETTINGS))
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3]))
            stream = int.from_bytes(head[5:])
            if head[3] == SETTINGS and not head[4] & ACK:
                writer.write(frame(SETTINGS, b"", 0, ACK))
            elif head[3] == HEADERS:
                turn += 1
                if turn > 1:
                    writer.write(frame(HEADERS, LENGTH5, stream, END_HEADERS))
                    writer.write(frame(DATA, b"clean", stream, END_STREAM))
                else:
                    writer.write(bytes_)

    await stage.serving(handler, RequestPolicy(h2c=True))
    with capture_logs() as events:
        await _survives(stage, name, before_the_head)
    assert not [event for event in events if event["log_level"] == "error"]


async def _survives(stage: Stage, name: str, before_the_head: bool) -> None:
    client = await stage.connect()
    client.get(method="POST", extra="Content-Length: 0\r\n")
    if before_the_head:
        while (answer := await client.answer()).status < 200:
            pass
        assert answer.status == 502
        assert name not in UNREADABLE or "its response headers cannot be parsed" in answer.text
    else:
        assert not (await client.closed()).endswith(b"0\r\n\r\n")
        client = await stage.connect()
    assert (await client.get().answer()).text == "clean"
    await eventually(lambda: not stage.gateway.requests)
