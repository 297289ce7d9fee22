"""HTTP/2 connections to instances whose port is named `h2c`: with prior knowledge, many requests on one connection."""

import asyncio
from collections import deque
from typing import cast

from activator.backend.endpoint import Dialer
from activator.backend.http2_upstream_stream import UpstreamStream
from activator.interfaces import ProxiedRequest
from activator.wire.callback_guard import guarded
from activator.wire.http2_codec import CodecFactory
from activator.wire.http2_errors import Setting
from activator.wire.http2_fields import HeaderList
from activator.wire.http2_protocol import STREAM_WINDOW, Http2Protocol
from activator.wire.read_scheduler import ReadScheduler

MAX_STREAMS = 100
"""Streams on one connection before another connection is opened; an instance may allow fewer."""

FOREVER = float("inf")


class Http2Pool:
    """All HTTP/2 connections to one instance."""

    def __init__(self, dialer: Dialer, new_codec: CodecFactory) -> None:
        self._dialer = dialer
        self._new_codec = new_codec
        self._connections: list[Http2Upstream] = []
        self._waiting: deque[tuple[ProxiedRequest, int]] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self.usable = True

    def forward(self, exchange: ProxiedRequest) -> None:
        """Send a request that has a slot."""
        for connection in self._connections:
            if connection.has_capacity():
                connection.start(exchange)
                return
        self._waiting.append((exchange, exchange.generation))
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            connection = cast(Http2Upstream, await self._dialer.dial(lambda: Http2Upstream(self, self._new_codec)))
        except (OSError, TimeoutError) as error:
            self._connecting = None
            waiting, self._waiting = self._waiting, deque()
            for exchange, generation in waiting:
                if exchange.generation == generation:
                    try:
                        exchange.connection_refused(error)
                    except Exception as bug:
                        exchange.internal_error(bug)
            return
        self._connecting = None
        self._dialer.failures = 0
        self._connections.append(connection)
        waiting, self._waiting = self._waiting, deque()
        for exchange, generation in waiting:
            if exchange.generation == generation:
                try:
                    self.forward(exchange)
                except Exception as bug:
                    exchange.internal_error(bug)

    def remove(self, connection: "Http2Upstream") -> None:
        """A connection ended, or accepts no more streams."""
        if connection in self._connections:
            self._connections.remove(connection)

    def retire(self) -> None:
        """Close idle connections now, the others after their last stream."""
        self.usable = False
        for connection in list(self._connections):
            connection.retire()


class Http2Upstream(Http2Protocol[UpstreamStream]):
    """One connection."""

    def __init__(self, pool: Http2Pool, new_codec: CodecFactory) -> None:
        settings = {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        super().__init__(asyncio.get_running_loop().call_soon, new_codec, settings, client=True)
        self._pool = pool
        self._turns: ReadScheduler | None = None
        self._leaving = False

    def has_capacity(self) -> bool:
        """Whether one more stream may be opened."""
        allowed = min(MAX_STREAMS, self.codec.max_streams)
        return not self._leaving and not self.transport.is_closing() and len(self.streams) < allowed

    def start(self, exchange: ProxiedRequest) -> None:
        """Send a request."""
        self._turns = exchange.proxy.read_scheduler
        UpstreamStream(self, exchange).start()

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flush()

    @guarded
    def connection_lost(self, error: Exception | None) -> None:
        self.codec.ended = True
        self._end("it closed the connection")

    def _end(self, why: str) -> None:
        """End all streams with an error."""
        self._leaving = True
        self._pool.remove(self)
        self._lose_all(why)

    @guarded
    def pause_writing(self) -> None:
        self.write_paused = True

    @guarded
    def resume_writing(self) -> None:
        self.write_paused = False
        self.window_updated(0)
        self.flush()

    @guarded
    def data_received(self, data: bytes) -> None:
        self.codec.feed(data)
        if self._read_pending:
            return
        if self._turns is None:
            self.codec.work(FOREVER)
            self.flush()
        elif self._turns.run(self._work):
            self._read_pending = True
            self.transport.pause_reading()

    def _work(self, until: float) -> bool:
        more = self.codec.work(until)
        self.flush()
        if not more and self._read_pending:
            self._read_pending = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return more

    def forget(self, stream: UpstreamStream) -> None:
        """A stream has ended."""
        self.streams.pop(stream.id, None)
        if self._leaving and not self.streams:
            self.transport.close()

    def retire(self) -> None:
        """Accept no more streams; close after the last one."""
        self._leaving = True
        self._pool.remove(self)
        if not self.streams:
            self.transport.close()

    # --- see http2_codec.FrameHandler

    def headers_received(self, stream: int, headers: HeaderList, done: bool) -> None:
        receiver = self.streams.get(stream)
        if receiver is not None:
            receiver.headers_received(headers, done)

    def goaway_received(self, last: int) -> None:
        """RFC 9113 §6.8: streams above the last one were not processed, so they may be sent again."""
        self.retire()
        for stream in [each for each in self.streams.values() if each.id > last]:
            self.streams.pop(stream.id, None)
            stream.lost("it sent GOAWAY", unsent=True)
        if not self.streams:
            self.transport.close()

    def connection_failed(self, text: str) -> None:
        self.flush()
        self.transport.close()
        self._end(f"it violated HTTP/2: {text}")

    def _lost(self, stream: UpstreamStream, reason: str, *, unsent: bool = False) -> None:
        stream.lost(reason, unsent=unsent)
