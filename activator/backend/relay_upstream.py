"""Connections to the relay of another node: HTTP/1.1, with the lines of `wire.relay_lines` before requests.

A request whose body is complete and small is written at once. For other requests only the head is written until the
owner of the instance has a slot and a connection: a body that was sent could not be sent again elsewhere.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from activator.backend.http1_upstream import Http1Pool, Http1Upstream
from activator.interfaces import NotRunThereError, ProxiedRequest
from activator.wire.callback_guard import guarded, report_error
from activator.wire.chunked import chunk, last_chunk
from activator.wire.http1_heads import CHUNKED
from activator.wire.node_socket import silent_seconds
from activator.wire.relay_lines import MARK, MAX_LINE, Mode, Verb, parse_statement, request_line

SlotFree = Callable[[str, str], bool]
"""Called with a revision and an instance that has a free slot again; returns whether a request was queued for it."""


class RelayPool(Http1Pool, Protocol):
    """The connections to the node."""

    def connection_failed(self) -> None:
        """Called when a connection ended with a request on it."""
        ...

    def connection_ended(self, connection: "RelayUpstream") -> None:
        """Called when a connection has ended."""
        ...


class RelayTarget(Protocol):
    """The endpoint of a request: an instance of another node."""

    lines: tuple[bytes, bytes]
    """The line before a complete request, and the line before a request whose body is held."""


class RelayUpstream(Http1Upstream):
    """One connection."""

    __slots__ = ("_held", "_pool", "_slot_free", "_statement", "ready")

    def __init__(self, pool: RelayPool, slot_free: SlotFree) -> None:
        super().__init__(pool)
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether the node accepts requests on this connection; set when it sends `ready` or the connection ends."""
        self._pool = pool
        self._slot_free = slot_free
        self._held = False
        """Whether the body of the request waits for `granted`."""
        self._statement = b""
        """The part of an incomplete line that has arrived."""

    # --- called by a request

    def send_request(self, exchange: ProxiedRequest, target: RelayTarget) -> None:
        """Send a request to an instance of the node."""
        complete, held = target.lines
        self._begin(exchange)
        body = b""
        self._held = not (exchange.body_done and exchange.can_be_resent())
        self._request_sent = not self._held
        self._chunked = exchange.head.length == CHUNKED
        if self._held:
            self._write(held + exchange.outgoing)
            return
        if exchange.pending:
            body = b"".join(exchange.pending)
        if self._chunked:
            body = (chunk(body) if body else b"") + last_chunk(exchange.trailers)
        self._write(complete + exchange.outgoing + body)

    def start(self, exchange: ProxiedRequest) -> None:
        endpoint = exchange.endpoint
        assert endpoint is not None
        self.send_request(exchange, endpoint)  # type: ignore[arg-type]  # a `RemoteEndpoint`

    def send(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        if self._held and self.exchange is not None:
            self.exchange.keep_body(data, done)
        else:
            super().send(data, done, trailers)

    # --- called by the pool

    def silent_seconds(self) -> float:
        """See `node_socket.silent_seconds`."""
        return silent_seconds(self._transport)

    @guarded
    def lose(self) -> None:
        """End the connection, because the other machine is lost."""
        self._transport.abort()
        self._ended(ConnectionError("its node does not respond"))

    # --- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if (self._statement or data[:1] == MARK[:1]) and self.expects_head():
            try:
                data = self._read_statements(data)
            except Exception as error:
                report_error(self, "RelayUpstream.data_received", error)
                return
            if not data:
                return
        super().data_received(data)

    @guarded
    def connection_lost(self, error: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_result(False)
        self._ended(error)

    def _ended(self, error: Exception | None) -> None:
        self._pool.connection_ended(self)
        exchange = self.exchange
        if exchange is not None:
            self._pool.connection_failed()  # first, so that the request is sent elsewhere
        if exchange is None or not self.expects_head():
            super().connection_lost(error)
            return
        self._detach()
        if self._held and exchange.head.idempotent:
            exchange.connection_refused(error or ConnectionError("its node closed the connection"))
        else:
            # Unlike an instance, a node may be lost at any time: an idempotent request is sent to another one.
            exchange.upstream_lost(str(error or "its node closed the connection"), reused=True)

    # --- lines from the owner of the instance

    def _read_statements(self, data: bytes) -> bytes:
        """Handle the owner's lines; returns the data after them."""
        data, self._statement = self._statement + data, b""
        while data[:1] == MARK[:1]:
            line, end, rest = data.partition(b"\r\n")
            if not end and len(data) < MAX_LINE:
                self._statement = data
                return b""
            parsed = parse_statement(line)
            if parsed is None:
                self._fail("its node violated the relay protocol")
                return b""
            data = rest
            self._handle(*parsed)
        return data

    def _handle(self, verb: Verb, text: str) -> None:
        exchange = self.exchange
        if verb is Verb.READY:
            if not self.ready.done():
                self.ready.set_result(True)
        elif verb is Verb.FREE:
            revision, _, instance = text.partition(" ")
            if not self._slot_free(revision, instance) and self.exchange is None:
                self._write(request_line(revision, instance, Mode.DECLINED))
        elif verb is Verb.CLOSING:
            self._detach()
            self._transport.close()
            if self in self._pool.idle:
                self._pool.idle.remove(self)
            if exchange is not None and (self._held or exchange.can_be_resent()):
                exchange.not_taken(busy=False)
            elif exchange is not None:
                exchange.upstream_lost("its node violated the relay protocol", reused=False)
        elif exchange is None:
            self._transport.abort()  # a statement about no request
        else:
            self._handle_of_request(verb, text, exchange)

    def _handle_of_request(self, verb: Verb, text: str, exchange: ProxiedRequest) -> None:
        if verb is Verb.LOAD:
            if exchange.endpoint is not None and text.isdecimal():
                exchange.endpoint.load_reported(int(text))
        elif verb is Verb.GRANTED:
            if self._held:
                self._held = False
                exchange.send_pending_body(self)
        elif not self._held and not exchange.can_be_resent():
            self._fail("its node violated the relay protocol")
        else:
            self._detach()
            self._pool.return_connection(self)
            if verb is Verb.BUSY:
                exchange.not_taken(busy=True)
            else:
                exchange.connection_refused(OSError(text) if text else NotRunThereError("its node does not run it"))

    def _end(self, exchange: ProxiedRequest, rest: bytes) -> None:
        if rest[:1] != MARK[:1]:
            super()._end(exchange, rest)
            return
        super()._end(exchange, b"")
        self._read_statements(rest)
