"""A real HTTP/1.1 server on loopback for each instance of the fake engine, so that requests and probes reach it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

import httptools


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """A request to the program."""

    method: str
    target: str
    """Path and query."""
    headers: tuple[tuple[str, str], ...]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class FakeAnswer:
    """Its response."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[FakeRequest], Awaitable[FakeAnswer]]


class FakeServer:
    """One program's listening socket; counts what is in it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self.in_flight = 0
        self.most_in_flight = 0
        self.answered = 0
        self.running = asyncio.Event()
        """Cleared while the instance is paused: connections are accepted, as a kernel does, but get no response."""
        self.running.set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def listen(self, address: str, port: int) -> None:
        """Accept connections at an address, beside those at which it does already."""
        loop = asyncio.get_running_loop()
        # Bound here, because the loop would resolve the address.
        listener = socket.create_server((address, port), family=socket.AF_INET, backlog=100)
        self._servers.append(await loop.create_server(lambda: _Connection(self), sock=listener))

    def stop_listening(self) -> None:
        """Accept no connections any more; those that are open stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def drain(self) -> None:
        """Accept nothing more, and wait until every request has its response."""
        self.stop_listening()
        await self._idle.wait()

    def kill(self) -> None:
        """Close everything at once, as the end of a process does."""
        self.stop_listening()
        for connection in list(self._connections):
            connection.abort()

    async def serve(self, request: FakeRequest) -> FakeAnswer:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._idle.clear()
        try:
            await self.running.wait()
            answer = await self._answer(request)
            await self.running.wait()
            self.answered += 1
            return answer
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    def opened(self, connection: "_Connection") -> None:
        self._connections.add(connection)

    def closed(self, connection: "_Connection") -> None:
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other, kept alive."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._requests: asyncio.Queue[tuple[FakeRequest, bool]] = asyncio.Queue()
        self._target, self._headers, self._body = b"", list[tuple[str, str]](), b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._server.opened(self)
        self._task = asyncio.create_task(self._work())

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.closed(self)
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        request = FakeRequest(method, self._target.decode("latin-1"), tuple(self._headers), self._body)
        self._requests.put_nowait((request, self._parser.should_keep_alive()))

    async def _work(self) -> None:
        assert self._transport is not None
        keep = True
        while keep:
            request, keep = await self._requests.get()
            answer = await self._server.serve(request)
            self._transport.write(_written(answer, keep))
        self._transport.close()


def _written(answer: FakeAnswer, keep: bool) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} Answer", f"content-length: {len(answer.body)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if not keep:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + answer.body
