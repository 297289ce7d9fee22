"""An HTTP/2 client that sends whatever frames a test wants and reads frames."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import hpack

from activator.wire.http2_frames import ACK, DATA, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, Frame
from tests.component.activator.stage import HOST, Connection

GET = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", HOST)]
POST = [(":method", "POST"), *GET[1:]]
Fields = list[tuple[str, str]]
END_STREAM, END_HEADERS = 0x1, 0x4


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    return Frame(kind, flags, stream, payload).wire()


def with_field(name: str, value: str, base: Fields = GET) -> Fields:
    """A request with another value of one pseudo-header field."""
    return [(name, value) if each == name else (each, old) for each, old in base]


@dataclass
class Seen:
    """What came from the gateway."""

    resets: dict[int, int] = field(default_factory=dict)
    """Stream to the code of its RST_STREAM."""
    goaway: int | None = None
    """The code of a GOAWAY."""
    heads: dict[int, dict[str, str]] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    """Streams that ended without a reset."""
    closed: bool = False


class Wire:
    """The client."""

    def __init__(self, client: Connection, *, settings: bytes = b"", preface: bytes | None = None) -> None:
        """
        Args:
            settings: payload of the first SETTINGS.
            preface: what is sent in place of the preface and SETTINGS.
        """
        self.client = client
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.seen = Seen()
        client.send(PREFACE + frame(SETTINGS, settings) if preface is None else preface)

    def block(self, fields: Fields) -> bytes:
        return bytes(self.encoder.encode(fields, huffman=False))

    def open(self, stream: int, fields: Fields = GET, *, done: bool = True) -> bytes:
        """HEADERS, as bytes; they must be sent in the order in which they are made."""
        return frame(HEADERS, self.block(fields), stream, END_HEADERS | (END_STREAM if done else 0))

    def send(self, *frames: bytes) -> "Wire":
        self.client.send(b"".join(frames))
        return self

    async def read(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        try:
            async with asyncio.timeout(10):
                head = await self.client.reader.readexactly(9)
                size = int.from_bytes(head[:3])
                payload = await self.client.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9]), payload)

    async def until(self, *streams: int) -> Seen:
        """Read until these streams ended or the connection did."""
        seen = self.seen
        while not all(stream in seen.whole or stream in seen.resets for stream in streams) or not streams:
            got = await self.read()
            if got is None:
                seen.closed = True
                return seen
            self.take(got)
        return seen

    async def settle(self) -> Seen:
        """Read what is sent before the response to a PING."""
        self.send(frame(PING, b"settled?"))
        while (got := await self.read()) is not None and not (got.kind == PING and got.flags & ACK):
            self.take(got)
        return self.seen

    async def until_bytes(self, count: int) -> Seen:
        """Read until there are this many bytes of bodies, and whatever was sent with them."""
        while sum(map(len, self.seen.bodies.values())) < count:
            got = await self.read()
            assert got is not None
            self.take(got)
        return await self.settle()

    def take(self, got: Frame) -> None:
        seen = self.seen
        if got.kind == RST_STREAM:
            seen.resets[got.stream] = int.from_bytes(got.payload)
        elif got.kind == GOAWAY:
            seen.goaway = int.from_bytes(got.payload[4:8])
        elif got.kind == HEADERS:
            # Without `raw`, names and values are text, whatever the annotation says.
            fields = cast("Iterable[tuple[str, str]]", self.decoder.decode(got.payload))
            seen.heads.setdefault(got.stream, {}).update(fields)
        elif got.kind == DATA:
            seen.bodies[got.stream] = seen.bodies.get(got.stream, b"") + got.payload
        elif got.kind == SETTINGS and not got.flags & ACK:
            self.send(frame(SETTINGS, b"", 0, ACK))
        if got.kind in (HEADERS, DATA) and got.flags & END_STREAM:
            seen.whole.add(got.stream)
