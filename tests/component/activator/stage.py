"""A gateway on real sockets with apps behind it whose behaviour a test sets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from activator.frontend.listeners import Listeners, bind
from activator.routing.proxy_state import ProxyState
from activator.wire import http2_codecs
from activator.wire.http2_codec import CodecFactory
from knoll.messages.endpoints import Endpoint, RevisionEndpoints, StartTiming
from knoll.messages.routing import RequestPolicy, RouteEntry, Share

HOST = "app.default.localhost"
REVISION = "default/app-00001"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Request:
    """What an app got."""

    line: str
    fields: dict[str, str]
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)


async def read_request(reader: asyncio.StreamReader, body: bool = True) -> Request:
    """Read one request as an app would; raises IncompleteReadError at the end of the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.rstrip("\r\n").split("\r\n")
    fields: dict[str, str] = {}
    for each in lines:
        name, _, value = each.partition(":")
        key = name.lower()
        fields[key] = f"{fields[key]} | {value.strip()}" if key in fields else value.strip()
    request = Request(line, fields)
    if not body:
        return request
    if "content-length" in fields:
        request.body = await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        request.body, request.trailers = await read_chunks(reader)
    return request


async def read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str]]:
    body, trailers = b"", {}
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode().rstrip().partition(":")
        trailers[name.lower()] = value.strip()
    return body, trailers


class App:
    """An app's server; `handler` handles each connection. Without one it responds with `hello` to every request."""

    def __init__(self, handler: Handler | None = None, name: str = "app-1") -> None:
        self.name = name
        self.handler = handler or self._hello
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> "App":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 5)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self.handler(reader, writer)
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _hello(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.requests.append(request)
            body = b"" if request.line.startswith("HEAD ") else b"hello"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-App: " + self.name.encode() + b"\r\n\r\n" + body)

    def endpoint(self, state: str = "ready", timing: StartTiming | None = None) -> Endpoint:
        return Endpoint(self.name, "127.0.0.1", self.port, state, timing)  # type: ignore[arg-type]


class Answer:
    """A response as a client reads it."""

    def __init__(self, status: int, fields: dict[str, str], body: bytes, trailers: dict[str, str]) -> None:
        self.status, self.fields, self.body, self.trailers = status, fields, body, trailers

    @property
    def text(self) -> str:
        return self.body.decode()


class Connection:
    """A client's connection; reads responses strictly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes | str) -> "Connection":
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def get(self, path: str = "/", host: str = HOST, extra: str = "", method: str = "GET") -> "Connection":
        return self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n")

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.rstrip("\r\n").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        return int(line.split(" ")[1]), fields

    async def answer(self, head_only: bool = False) -> Answer:
        async with asyncio.timeout(30):
            status, fields = await self.head()
            trailers: dict[str, str] = {}
            body = b""
            if not head_only and status >= 200 and status not in (204, 304):
                if "transfer-encoding" in fields:
                    body, trailers = await read_chunks(self.reader)
                elif "content-length" in fields:
                    body = await self.reader.readexactly(int(fields["content-length"]))
                else:
                    body = await self.reader.read()
            return Answer(status, fields, body, trailers)

    async def closed(self) -> bytes:
        """What still comes until the end of the connection."""
        async with asyncio.timeout(30):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()


class Stage:
    """A gateway with one route to one revision, and what a test changes of it."""

    def __init__(self, gateway: ProxyState, port: int, local_port: int) -> None:
        self.gateway = gateway
        self.port = port
        self.local_port = local_port
        self._apps: list[App] = []
        self._connections: list[Connection] = []

    def route(self, policy: RequestPolicy | None = None, hosts: Mapping[str, tuple[Share, ...]] | None = None) -> None:
        everything = {HOST: (Share(REVISION, 100),), **(hosts or {})}
        names = {share.revision for shares in everything.values() for share in shares}
        entry = RouteEntry(hosts=everything, revisions={name: policy or RequestPolicy() for name in names})
        self.gateway.change_route("default/app", entry)

    def endpoints(self, *endpoints: Endpoint, revision: str = REVISION) -> None:
        self.gateway.change_endpoints(revision, RevisionEndpoints(endpoints))

    async def app(self, handler: Handler | None = None, name: str = "app-1") -> App:
        app = await App(handler, name).start()
        self._apps.append(app)
        return app

    async def serving(self, handler: Handler | None = None, policy: RequestPolicy | None = None) -> App:
        """An app that the route leads to."""
        app = await self.app(handler)
        self.route(policy)
        self.endpoints(app.endpoint())
        return app

    async def connect(self, port: int | None = None) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port or self.port))
        self._connections.append(connection)
        return connection

    async def get(self, path: str = "/", host: str = HOST, extra: str = "") -> Answer:
        return await (await self.connect()).get(path, host, extra).answer()

    async def exchange(self, data: bytes) -> Answer:
        return await (await self.connect()).send(data).answer()

    async def end(self) -> None:
        for connection in self._connections:
            connection.close()
        await self.gateway.stop()
        for app in self._apps:
            await app.stop()


@contextlib.asynccontextmanager
async def staged(codec: CodecFactory = http2_codecs.default) -> AsyncIterator[Stage]:
    gateway = ProxyState("test")
    gateway.new_codec = codec
    listeners = Listeners(gateway)
    public, local = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
    stage = Stage(gateway, _port(public), _port(local))
    await listeners.open([public])
    await listeners.open([local], local=True)
    gateway.start()
    try:
        yield stage
    finally:
        listeners.close()
        await stage.end()


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
