"""A gateway whose connections are in memory, so that a test controls what arrives when, byte by byte."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from activator.backend.endpoint import PoolFactory, UpstreamEndpoint
from activator.frontend.http1_server import Http1Connection
from activator.routing.proxy_state import ProxyState
from activator.wire import http2_codecs
from activator.wire.http2_codec import CodecFactory
from knoll.messages.endpoints import Endpoint, RevisionEndpoints
from knoll.messages.routing import RequestPolicy, RouteEntry, Share
from tests.component.activator.stage import HOST, REVISION

_OPEN, _PEER = socket.socketpair()
"""A connection that neither side ends."""


class Pipe(asyncio.Transport):
    """The gateway's end of a connection."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "socket": _OPEN})
        self.protocol = protocol
        self.written = bytearray()
        self.lost = False
        self._closing = False
        self.unsent = 0
        """Bytes that the peer has not taken."""

    def start(self) -> "Pipe":
        self.protocol.connection_made(self)
        return self

    def arrive(self, data: bytes) -> None:
        """Bytes of the peer."""
        if not self.lost:
            self.protocol.data_received(data)

    def end(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = self._closing = True
            self.protocol.connection_lost(error)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)

    def write(self, data: Any) -> None:
        assert isinstance(data, bytes)
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.end)

    def abort(self) -> None:
        self.close()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Piped(UpstreamEndpoint):
    """An instance that is reached through pipes."""

    __slots__ = ("pipes", "refuses")

    def __init__(self, id_: str, host: str, port: int, limit: int, http2_pool: PoolFactory) -> None:
        super().__init__(id_, host, port, limit, http2_pool)
        self.pipes: list[Pipe] = []
        self.refuses = False

    async def dial(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        if self.refuses:
            raise OSError("refused")
        pipe = Pipe(factory()).start()
        self.pipes.append(pipe)
        return pipe.protocol


class Scene:
    """A gateway with one client and one revision; made in a running loop."""

    def __init__(self, codec: CodecFactory = http2_codecs.default, *, h2c: bool = False, concurrency: int = 0) -> None:
        self.gateway = ProxyState("test")
        self.gateway.new_codec = codec
        self.gateway.endpoint_factory = Piped
        policy = RequestPolicy(concurrency=concurrency, h2c=h2c, idle_timeout=60)
        entry = RouteEntry(hosts={HOST: (Share(REVISION, 100),)}, revisions={REVISION: policy})
        self.gateway.change_route("default/app", entry)
        self.endpoints("app-1")
        self.instance = cast(Piped, self.gateway.revision(REVISION).endpoints["app-1"])
        self.client = Pipe(Http1Connection(self.gateway)).start()
        self.opened = 0
        """Above the number of the last stream that the client opened."""

    def endpoints(self, *names: str) -> None:
        endpoints = tuple(Endpoint(name, "127.0.0.1", 1) for name in names)
        self.gateway.change_endpoints(REVISION, RevisionEndpoints(endpoints))

    def origin(self) -> Pipe | None:
        """The newest connection to the instance that is open."""
        return next((pipe for pipe in reversed(self.instance.pipes) if not pipe.lost), None)

    def sweep(self, seconds: float) -> None:
        """Let that much time pass, and run every periodic check once."""
        now = self.gateway.time() + seconds
        for exchange in [each for each in self.gateway.requests if each.deadline <= now]:
            if exchange in self.gateway.requests:
                exchange.deadline_passed(now)
        for connection in list(self.gateway.connections):
            connection.sweep(now)

    async def end(self) -> None:
        """All connections have ended; every count must be back at zero."""
        self.client.end()
        await turns(3)
        for pipe in self.instance.pipes:
            pipe.end()
        await turns(3)
        revision = self.gateway.revision(REVISION)
        assert not self.gateway.requests
        assert not self.gateway.connections
        assert (revision.stats.active, self.instance.in_flight, self.instance.tunnels) == (0, 0, 0)
        assert not revision.breaker.queue
        await self.gateway.stop()


async def turns(count: int) -> None:
    """Turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)
