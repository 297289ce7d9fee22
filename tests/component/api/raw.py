"""Raw connections to the API, for requests that no HTTP client sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    code: int
    fields: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header field."""
        return [value for field, value in self.fields if field == name]

    def json(self) -> Any:
        return orjson.loads(self.body)


class Raw:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send; what the other side no longer takes is lost."""
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    async def answer(self, within: float = 10.0) -> Answer:
        """The next response whose length is given."""
        async with asyncio.timeout(within):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            length = int(next((value for name, value in fields if name == "content-length"), "0"))
            return Answer(int(first.split(" ")[1]), fields, await self.reader.readexactly(length))

    async def ended(self, within: float = 10.0) -> bytes:
        """What else comes until the other side closes."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def connected(url: str, source: str = "") -> AsyncIterator[Raw]:
    """Args: source: address to connect from; any of 127.0.0.0/8 is this machine's."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        place.hostname, place.port, local_addr=(source, 0) if source else None
    )
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
