"""A stream of a client's HTTP/2 connection: an exchange.

Its header list is converted to an HTTP/1.1 head and read by `http1_parser`, so that both versions have one set of rules
for what may reach an instance.
"""

from typing import NamedTuple, Protocol

from activator.frontend.limits import END_SECONDS, SEND_SECONDS
from activator.request import local_responses
from activator.request.exchange import Exchange
from activator.request.states import IDLE
from activator.routing.proxy_state import ProxyState
from activator.wire.forwarding import Peer
from activator.wire.http1_heads import MAX_CACHED_HEAD, HeadError, RequestHead, ResponseHead, upstream_head
from activator.wire.http1_parser import read_request, split_fields
from activator.wire.http2_codec import ANSWERED, MAX_HEADER_LIST, Codec
from activator.wire.http2_errors import ErrorCode, HTTP2StreamError
from activator.wire.http2_fields import Fields, HeaderList, as_http1
from activator.wire.http2_flow import Outbox
from activator.wire.memo import Memo


class _Parsed(NamedTuple):
    """The interpretation of a header list; valid until the rules for forwarding change."""

    rules: int
    done: bool
    head: RequestHead
    outgoing: bytes


class StreamConnection(Protocol):
    """The connection, as a stream sees it."""

    proxy: ProxyState
    peer: Peer
    local: bool
    codec: Codec
    write_paused: bool
    unflushed: int
    rules: int
    sent_heads: Memo[bytes, Fields]

    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def forwarding(self, head: RequestHead) -> bytes: ...
    def forget(self, stream: "Http2Stream") -> None: ...


class Http2Stream(Exchange):
    """One request of a connection; see `Exchange` about its many attributes."""

    __slots__ = (
        "_closed", "_end_due", "_last_progress", "_length_declared", "_paused", "_remaining", "_unacknowledged",
        "_unsent", "connection", "id", "outbox",
    )  # fmt: skip

    def __init__(self, connection: StreamConnection, id_: int) -> None:
        super().__init__(connection.proxy)
        self.connection = connection
        self.local = connection.local
        self.id = id_
        self.outbox = Outbox(connection, id_, self._outbox_full, self._outbox_drained, self._outbox_done)
        self._unacknowledged = 0
        """Bytes of the body that are not acknowledged yet, so the client's window is smaller by them."""
        self._remaining = -1
        """Bytes of the body that are still to come; -1 if the head has no length."""
        self._length_declared = False
        """The response has a Content-Length."""
        self._paused = False
        self._closed = False
        self._unsent, self._last_progress = 0, 0.0
        self._end_due = 0.0
        """Time by which the client must send END_STREAM after a complete body and response; 0 without such a limit."""

    @property
    def peer(self) -> Peer:
        return self.connection.peer

    @property
    def protocol(self) -> str:
        return "HTTP/2.0"

    # --- called by the connection

    def headers_received(self, headers: HeaderList, done: bool) -> None:
        """The head arrived.

        Raises:
            HTTP2ConnectionError: too many requests needed no instance.
        """
        self.body_done = done
        connection = self.connection
        parsed = headers.parsed
        if isinstance(parsed, _Parsed) and parsed.rules == connection.rules and parsed.done == done:
            self.head, self.outgoing = parsed.head, parsed.outgoing
        else:
            try:
                if headers.size > MAX_HEADER_LIST:
                    raise HeadError(431, f"the header list is longer than {MAX_HEADER_LIST} bytes")
                self.head = read_request(as_http1(headers.fields, done), self.proxy.underscores)
            except HeadError as error:
                head, body = local_responses.reply(error.status, str(error), self.proxy.wall_clock())
                self.write_response(head, body, True, b"")
                self._closed = True
                connection.codec.budget.spend(1)
                return
            self.outgoing = upstream_head(self.head, connection.forwarding(self.head))
            headers.parsed = _Parsed(connection.rules, done, self.head, self.outgoing)
        if not done and self.head.length >= 0:
            self._remaining = self.head.length
        self.begin()
        if self.state is IDLE and self.status < 429:
            connection.codec.budget.spend(1)  # it needed no instance

    def body_received(self, data: bytes, size: int, done: bool) -> None:
        """Part of the body arrived; it counts against the client's window until the instance has taken it."""
        self._unacknowledged += size
        if self._remaining >= 0:
            self._remaining -= len(data)
            if self._remaining < 0 or (done and self._remaining):
                raise HTTP2StreamError(self.id, ErrorCode.PROTOCOL_ERROR, "the body does not have the declared length")
        if self._closed or self.state is IDLE:
            self._acknowledge()
            self._note_end(done)
            return
        if data or done:
            self.request_body(data, done)
        if not self._paused:
            self._acknowledge()

    def trailers_received(self, lines: bytes) -> None:
        """Trailer fields arrived, and the end of the body with them."""
        if self._remaining > 0:
            raise HTTP2StreamError(self.id, ErrorCode.PROTOCOL_ERROR, "the body does not have the declared length")
        if self.state is not IDLE and not self._closed:
            self.request_body(b"", True, lines)
        self._note_end(True)

    def _note_end(self, done: bool) -> None:
        if done:
            self.body_done = True
            if self._end_due:
                self.connection.forget(self)

    def lost(self) -> None:
        """The stream or its connection ended."""
        self._closed = True
        self.outbox.drop()
        self._acknowledge()
        self.client_gone()

    def pause_body(self) -> None:
        self._paused = True

    def resume_body(self) -> None:
        self._paused = False
        self._acknowledge()
        self.connection.flush_soon()

    def _acknowledge(self) -> None:
        held, self._unacknowledged = self._unacknowledged, 0
        if held:
            self.connection.codec.acknowledge(held, self.id)

    def sweep(self, now: float) -> None:
        """Reset the stream if the client stops reading, or does not end its body in time; called once a second."""
        if self._end_due:
            if now > self._end_due:
                self._end(ErrorCode.NO_ERROR)
            return
        unsent = self.outbox.size
        if self.state is not IDLE or not unsent or unsent != self._unsent:
            self._unsent, self._last_progress = unsent, now
        elif now - self._last_progress > SEND_SECONDS:
            self._end(ErrorCode.CANCEL)

    # --- see Exchange

    def write_response(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes) -> None:
        if self._closed:
            return
        self._length_declared = head.length >= 0 and head.status != 204
        fields = self.connection.sent_heads.get(head.plain) or self._header_list(head)
        empty = done and not data and not trailers
        if not self.connection.codec.send_head(self.id, fields, empty):
            self._closed = True  # the client closed it in the same batch of frames
            self.connection.forget(self)
            return
        self.connection.flush_soon()
        if self.endpoint is not None:
            self.connection.codec.budget.earn(ANSWERED)
        if empty:
            self._outbox_done()
        else:
            self.outbox.add(data, done, trailers)

    def _header_list(self, head: ResponseHead) -> Fields:
        fields = [(b":status", b"%d" % head.status)]
        fields += [(name.lower(), value) for name, value in split_fields(head.block)]
        if self._length_declared:
            fields.append((b"content-length", b"%d" % head.length))
        if len(head.plain) <= MAX_CACHED_HEAD:
            self.connection.sent_heads.keep(head.plain, fields)
        return fields

    def write_body(self, data: bytes, done: bool, trailers: bytes) -> None:
        if not self._closed:
            self.outbox.add(data, done, trailers)
            self.connection.flush_soon()

    def write_informational(self, head: ResponseHead) -> None:
        if head.status != 101 and not self._closed:
            fields = [(b":status", b"%d" % head.status)]
            fields += [(name.lower(), value) for name, value in split_fields(head.block)]
            self.connection.codec.send_interim(self.id, fields)
            self.connection.flush_soon()

    def write_tunnel(self, data: bytes) -> None:
        raise AssertionError("HTTP/2 does not support upgrades")

    def write_truncated_end(self) -> None:
        if self._length_declared:
            self.reset_response()  # RFC 9113 §8.1.1: a body shorter than its Content-Length is malformed
        else:
            self.write_body(b"", True, b"")

    def reset_response(self) -> None:
        if not self._closed:
            self._end(ErrorCode.INTERNAL_ERROR)

    def abort_response(self) -> None:
        self._end(ErrorCode.INTERNAL_ERROR)

    def finished(self) -> None:
        self._acknowledge()

    def _outbox_full(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_reading()

    def _outbox_drained(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_reading()

    def _outbox_done(self) -> None:
        """The whole response was sent."""
        self._closed = True
        if not self.body_done:
            if not self._remaining:
                # Only END_STREAM is missing, and it may be on its way. Python's httpcore fails when it sends END_STREAM
                # on a stream that was reset, and loses the response.
                self._end_due = self.proxy.time() + END_SECONDS
                return
            # RFC 9113 §8.1: the response is complete, the rest of the request is not needed.
            self.connection.codec.reset(self.id, ErrorCode.NO_ERROR)
            self.connection.flush_soon()
        self.connection.forget(self)

    def _end(self, code: ErrorCode) -> None:
        self._closed = True
        self.outbox.drop()
        self.connection.codec.reset(self.id, code)
        self.connection.flush_soon()
        self.connection.forget(self)
