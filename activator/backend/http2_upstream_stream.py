"""One request on an HTTP/2 connection to an instance."""

from typing import Protocol

from activator.interfaces import ProxiedRequest
from activator.wire.http1_heads import MAX_CACHED_HEAD, ResponseHead
from activator.wire.http1_parser import split_fields
from activator.wire.http2_codec import ANSWERED, MAX_HEADER_LIST, UNREADABLE_HEAD, WRONG_LENGTH, Codec, RequestNotSent
from activator.wire.http2_errors import ErrorCode
from activator.wire.http2_fields import NOT_IN_HTTP2, Fields, HeaderList, response_head
from activator.wire.http2_flow import Outbox
from activator.wire.memo import Memo


class UpstreamStreamConnection(Protocol):
    """The connection, as a stream sees it."""

    codec: Codec
    write_paused: bool
    unflushed: int
    streams: "dict[int, UpstreamStream]"
    sent_heads: Memo[bytes, Fields]

    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def forget(self, stream: "UpstreamStream") -> None: ...
    def retire(self) -> None: ...


class UpstreamStream:
    """The stream of one request; implements `interfaces.UpstreamConnection`."""

    __slots__ = (
        "_body_sent", "_connection", "_exchange", "_paused", "_remaining", "_started", "_unacknowledged", "id",
        "outbox",
    )  # fmt: skip

    def __init__(self, connection: UpstreamStreamConnection, exchange: ProxiedRequest) -> None:
        self.id = 0
        self._connection = connection
        self._exchange: ProxiedRequest | None = exchange
        self._unacknowledged = 0
        self._remaining = -1
        """Bytes of the response's body that are still to come; -1 if its head has no length."""
        self._paused = False
        self._started = False
        self._body_sent = False

    def start(self) -> None:
        """Send the request's head and the pending parts of its body."""
        exchange, connection = self._exchange, self._connection
        assert exchange is not None
        exchange.upstream = self
        fields = connection.sent_heads.get(exchange.outgoing) or _header_list(connection, exchange)
        empty = exchange.body_done and not exchange.pending and not exchange.trailers
        try:
            self.id = connection.codec.request(fields, empty)
        except RequestNotSent as error:
            connection.retire()
            self.lost(f"the request cannot be expressed in HTTP/2: {error}", unsent=False)
            return
        connection.streams[self.id] = self
        self.outbox = Outbox(connection, self.id, self._outbox_full, self._outbox_drained, self._outbox_done)
        connection.flush_soon()
        if empty:
            self._body_sent = True
        else:
            exchange.send_pending_body(self)

    # --- called by the request

    def send(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        self.outbox.add(data, done, trailers)
        self._connection.flush_soon()

    def tunnel(self, data: bytes) -> None:
        raise AssertionError("HTTP/2 does not support upgrades")

    def cancel(self) -> None:
        self._exchange = None
        self._stop(ErrorCode.CANCEL)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._acknowledge()
        self._connection.flush_soon()

    def _outbox_full(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_body()

    def _outbox_drained(self) -> None:
        if self._exchange is not None:
            self._exchange.resume_body()

    def _outbox_done(self) -> None:
        self._body_sent = True

    def _stop(self, code: ErrorCode) -> None:
        """Send and receive no more."""
        self.outbox.drop()
        self._acknowledge()
        self._connection.codec.reset(self.id, code)
        self._connection.flush_soon()
        self._connection.forget(self)

    def _acknowledge(self) -> None:
        held, self._unacknowledged = self._unacknowledged, 0
        if held:
            self._connection.codec.acknowledge(held, self.id)

    # --- called by the connection

    def headers_received(self, headers: HeaderList, done: bool) -> None:
        """A response's head arrived, or a 1xx."""
        exchange = self._exchange
        if exchange is None:
            return
        size, head = headers.size, headers.parsed
        if not isinstance(head, ResponseHead):
            head = headers.parsed = response_head(headers.fields) if size <= MAX_HEADER_LIST else None
        if head is None:
            long = f"its response headers are longer than {MAX_HEADER_LIST} bytes"
            self._fail(long if size > MAX_HEADER_LIST else UNREADABLE_HEAD)
            return
        if head.status < 200:
            if head.status == 101:
                self._fail("it switched protocols, which HTTP/2 does not allow")
            else:
                self._connection.codec.budget.spend(1)
                exchange.informational(head)
            return
        self._connection.codec.budget.earn(ANSWERED)
        self._started = True
        if exchange.head.is_head or head.status in (204, 304):
            self._remaining = 0
        elif head.length >= 0:
            self._remaining = head.length
        if done:
            if self._remaining > 0:
                self._fail(WRONG_LENGTH)
                return
            self._end()
        exchange.response_head(head, b"", done)

    def body_received(self, data: bytes, size: int, done: bool) -> None:
        """Part of the response's body arrived."""
        self._unacknowledged += size
        if not self._paused:
            self._acknowledge()
        exchange = self._exchange
        if exchange is None:
            return
        if self._remaining >= 0:
            self._remaining -= len(data)
            if self._remaining < 0 or (done and self._remaining):
                self._fail(WRONG_LENGTH)
                return
        if done:
            self._end()
            exchange.response_body(data, True)
        elif data:
            exchange.response_body(data, False)

    def trailers_received(self, lines: bytes) -> None:
        """Trailer fields arrived, and the end of the response with them."""
        exchange = self._exchange
        if exchange is None:
            return
        if self._remaining > 0:
            self._fail(WRONG_LENGTH)
            return
        self._end()
        exchange.response_body(b"", True, lines)

    def _end(self) -> None:
        """The response is complete."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.upstream = None
        if self._body_sent:
            self._acknowledge()
            self._connection.forget(self)
        else:
            self._stop(ErrorCode.NO_ERROR)

    def _fail(self, why: str) -> None:
        """The response cannot be passed on."""
        exchange, self._exchange = self._exchange, None
        self._stop(ErrorCode.PROTOCOL_ERROR)
        if exchange is not None:
            exchange.upstream_lost(why, reused=False)

    def lost(self, why: str, unsent: bool) -> None:
        """The stream or its connection ended."""
        exchange, self._exchange = self._exchange, None
        self._acknowledge()
        if exchange is not None:
            exchange.upstream_lost(why, reused=False, unsent=unsent)


def _header_list(connection: UpstreamStreamConnection, exchange: ProxiedRequest) -> Fields:
    """Convert the head of a request, and keep the result for an equal one."""
    head, outgoing = exchange.head, exchange.outgoing
    fields = [
        (b":method", head.method), (b":scheme", b"http"), (b":authority", head.authority), (b":path", head.target)
    ]  # fmt: skip
    lines = outgoing.partition(b"\r\n")[2]
    fields += [(n, v) for n, v in ((n.lower(), v) for n, v in split_fields(lines)) if n not in NOT_IN_HTTP2]
    if len(outgoing) <= MAX_CACHED_HEAD:
        connection.sent_heads.keep(outgoing, fields)
    return fields
