"""HTTP/1.1 connections to instances: kept alive, and used by one request at a time."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from activator.interfaces import ProxiedRequest
from activator.wire.callback_guard import guarded, report_error
from activator.wire.chunked import ChunkedReader, chunk, last_chunk
from activator.wire.http1_heads import CHUNKED, MAX_CACHED_HEAD, MAX_HEAD, UNTIL_CLOSE, ResponseHead
from activator.wire.http1_parser import read_response, response_end

IDLE_SECONDS = 50.0
"""How long an idle connection is kept, unless the instance announced less (`Keep-Alive: timeout=`)."""
MAX_INTERIM = 100
"""Limit of 1xx responses to one request."""

_HEAD, _LENGTH, _CHUNKS, _CLOSE, _TUNNEL, _IDLE = range(6)


class Http1Pool(Protocol):
    """The endpoint of a connection."""

    retired: bool
    idle: "list[Http1Upstream]"
    waiting: deque[tuple[ProxiedRequest, int]]

    def return_connection(self, upstream: "Http1Upstream") -> None:
        """Take back a connection that can be reused."""
        ...


class Http1Upstream(asyncio.Protocol):
    """One HTTP/1.1 connection to an instance.

    Its attributes are the state of the response parser, read and written once for each response.
    """

    __slots__ = (
        "_buffer", "_chunked", "_chunks", "_endpoint", "_interim", "_keep_alive", "_last_head", "_remaining",
        "_request_sent", "_reused", "_stage", "_transport", "_write", "exchange", "idle_since", "keep_alive_seconds",
    )  # fmt: skip

    def __init__(self, endpoint: Http1Pool) -> None:
        self._endpoint = endpoint
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._write: Callable[[bytes], None]
        self.exchange: ProxiedRequest | None = None
        self.idle_since = 0.0
        self.keep_alive_seconds = IDLE_SECONDS
        self._stage = _IDLE
        self._interim = 0
        self._buffer = b""
        self._last_head: ResponseHead | None = None
        self._remaining = 0
        self._chunks = ChunkedReader()
        self._chunked = False
        self._keep_alive = False
        self._request_sent = False
        self._reused = False

    # --- called by a request

    def start(self, exchange: ProxiedRequest) -> None:
        """Send the request's head and the pending parts of its body."""
        self.exchange = exchange
        exchange.upstream = self
        self._stage = _HEAD
        self._interim = 0
        if exchange.body_done and not exchange.pending and exchange.head.length >= 0:
            self._request_sent = True
            self._write(exchange.outgoing)
            return
        self._request_sent = False
        self._chunked = exchange.head.length == CHUNKED
        self._write(exchange.outgoing)
        exchange.send_pending_body(self)

    def send(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """Send more of the request's body."""
        if self._chunked:
            data = chunk(data) if data else b""
            if done:
                data += last_chunk(trailers)
        if data:
            self._write(data)
        if done:
            self._request_sent = True

    def tunnel(self, data: bytes) -> None:
        """Send bytes of an upgraded connection."""
        self._write(data)

    def cancel(self) -> None:
        """The request ended early: abort the connection."""
        self.exchange = None
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def expects_head(self) -> bool:
        """Whether no byte of a response has been read: the connection is idle, or waits for a head."""
        return (self._stage == _HEAD or self._stage == _IDLE) and not self._buffer

    def _begin(self, exchange: ProxiedRequest) -> None:
        """Attach to a request. For subclasses; `start` does the same inline, because that is faster."""
        self.exchange = exchange
        exchange.upstream = self
        self._stage = _HEAD
        self._interim = 0

    def _detach(self) -> None:
        """Detach from a request that was not forwarded."""
        if self.exchange is not None:
            self.exchange.upstream = None
        self.exchange = None
        self._stage = _IDLE

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write

    @guarded
    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_body()

    @guarded
    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.resume_body()

    def data_received(self, data: bytes) -> None:
        exchange, stage = self.exchange, self._stage
        try:
            if exchange is None:
                self._transport.abort()  # a response without a request
            elif stage == _HEAD:
                memo = self._last_head
                if memo is not None and not self._buffer and data.startswith(memo.wire):
                    self._answer(exchange, memo, data[len(memo.wire) :])
                else:
                    self._read_head(exchange, data)
            elif stage == _LENGTH:
                self._read_length(exchange, data)
            elif stage == _CHUNKS:
                self._read_chunks(exchange, data)
            elif stage == _CLOSE:
                exchange.response_body(data, False)
            else:
                exchange.tunnel_data(data)
        except Exception as error:
            self.exchange = self.exchange or exchange
            report_error(self, "Http1Upstream.data_received", error)

    def abort_on_error(self) -> None:
        """An unexpected exception was raised: end the connection and the request on it."""
        self._fail("internal error")

    def _read_head(self, exchange: ProxiedRequest, data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while self.exchange is exchange:
            end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
            head = read_response(data[:end]) if end > 3 else None
            if head is None:  # its lines may end with LF alone
                end = response_end(data[:MAX_HEAD])
                head = read_response(data[:end]) if end else None
            if not end:
                self._read_part(data)
                return
            if head is None:
                self._fail("its response headers cannot be parsed")
                return
            if head.status >= 200:
                if end <= MAX_CACHED_HEAD:
                    self._last_head = head
                if head.keep_alive_seconds:
                    self.keep_alive_seconds = max(0.0, head.keep_alive_seconds - 1.0)
                self._answer(exchange, head, data[end:])
                return
            data = data[end:]
            if not self._take_interim(exchange, head, data) or not data:
                return

    def _read_part(self, data: bytes) -> None:
        """The head is incomplete."""
        if not b"HTTP/1.".startswith(data[:7]):
            self._fail("its response is not HTTP/1.1")
        elif len(data) >= MAX_HEAD:
            self._fail(f"its response headers are longer than {MAX_HEAD} bytes")
        else:
            self._buffer = data

    def _take_interim(self, exchange: ProxiedRequest, head: ResponseHead, rest: bytes) -> bool:
        """Pass a 1xx response on; returns whether the final response is still to come."""
        if head.status == 101:
            if not exchange.head.upgrade or not head.upgrade:
                self._fail("it switched protocols without being asked to")
                return False
            self._stage, self._keep_alive = _TUNNEL, False
            exchange.protocol_switched(head, rest)
            return False
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._fail(f"it sent more than {MAX_INTERIM} responses with status 1xx")
            return False
        exchange.informational(head)
        return True

    def _answer(self, exchange: ProxiedRequest, head: ResponseHead, rest: bytes) -> None:
        length = head.length
        self._keep_alive = head.keep_alive
        if length != len(rest) or not head.has_body or exchange.head.is_head:
            if exchange.head.is_head or not head.has_body:
                self._end(exchange, rest)
                exchange.response_head(head, b"", True)
            else:
                self._begin_body(exchange, head, rest)
            return
        endpoint = self._endpoint
        if head.keep_alive and self._request_sent and not endpoint.retired and not endpoint.waiting:
            # As `_end`; most responses are complete like this one.
            self.exchange = exchange.upstream = None
            self._stage = _IDLE
            self._reused = True
            self.idle_since = exchange.proxy.now
            endpoint.idle.append(self)
        else:
            self._end(exchange, b"")
        exchange.response_head(head, rest, True)

    def _begin_body(self, exchange: ProxiedRequest, head: ResponseHead, rest: bytes) -> None:
        length = head.length
        if length == CHUNKED:
            self._stage, self._chunks = _CHUNKS, ChunkedReader()
            body = self._chunks.feed(rest) if rest else b""
            if self._chunks.error:
                self._fail(self._chunks.error)
                return
            done = self._chunks.done
            if done:
                self._end(exchange, self._chunks.rest)
            exchange.response_head(head, body, done, self._chunks.trailers)
        elif length == UNTIL_CLOSE:
            self._stage, self._keep_alive = _CLOSE, False
            exchange.response_head(head, rest, False)
        elif len(rest) > length:
            self._end(exchange, rest[length:])
            exchange.response_head(head, rest[:length], True)
        else:
            self._stage, self._remaining = _LENGTH, length - len(rest)
            exchange.response_head(head, rest, False)

    def _read_length(self, exchange: ProxiedRequest, data: bytes) -> None:
        left = self._remaining = self._remaining - len(data)
        if left > 0:
            exchange.response_body(data, False)
            return
        self._end(exchange, data[left:] if left else b"")
        exchange.response_body(data[:left] if left else data, True)

    def _read_chunks(self, exchange: ProxiedRequest, data: bytes) -> None:
        chunks = self._chunks
        body = chunks.feed(data)
        if chunks.error:
            self._fail(chunks.error)
        elif chunks.done:
            self._end(exchange, chunks.rest)
            exchange.response_body(body, True, chunks.trailers)
        elif body:
            exchange.response_body(body, False)

    def _end(self, exchange: ProxiedRequest, rest: bytes) -> None:
        """The response is complete: detach from the request and make the connection available again."""
        self.exchange = exchange.upstream = None
        self._stage = _IDLE
        if self._keep_alive and self._request_sent and not rest:
            self._reused = True
            endpoint = self._endpoint
            if endpoint.retired or endpoint.waiting:
                endpoint.return_connection(self)
            else:
                self.idle_since = exchange.proxy.now
                endpoint.idle.append(self)
        else:
            self._transport.close()

    def _fail(self, why: str) -> None:
        exchange, self.exchange = self.exchange, None
        self._transport.abort()
        if exchange is not None:
            exchange.upstream_lost(why, reused=False)

    def eof_received(self) -> None:
        return None

    @guarded
    def connection_lost(self, error: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            if self in self._endpoint.idle:
                self._endpoint.idle.remove(self)
            return
        if self._stage == _CLOSE and error is None:
            exchange.upstream = None
            exchange.response_body(b"", True)
        elif self._stage == _TUNNEL:
            exchange.tunnel_closed()
        else:
            nothing_came = self._stage == _HEAD and not self._buffer
            exchange.upstream_lost("it closed the connection", reused=self._reused and nothing_came)
