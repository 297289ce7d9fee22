"""One request of an HTTP/2 connection of a client: an exchange.

Its fields are written as an HTTP/1.1 head and read by `heads`, so that the rules for what may reach an instance are in
one place for both versions.
"""

from typing import Protocol

from h2.errors import ErrorCodes

from activator.frontend.limits import SEND_SECONDS
from activator.request import local_responses
from activator.request.exchange import Exchange
from activator.request.states import IDLE
from activator.routing.proxy_state import ProxyState
from activator.wire.forwarding import Peer
from activator.wire.http1_parser import HeadError, RequestHead, ResponseHead, read_request, split_fields, upstream_head
from activator.wire.http2_codec import ANSWERED, MAX_HEADER_LIST, Codec
from activator.wire.http2_fields import Fields, as_http1
from activator.wire.http2_flow import Outbox
from activator.wire.http2_frames import HTTP2StreamError


class StreamConnection(Protocol):
    """The connection, as a stream sees it."""

    proxy: ProxyState
    peer: Peer
    local: bool
    codec: Codec
    write_paused: bool
    unflushed: int

    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def forwarding(self, head: RequestHead) -> bytes: ...
    def forget(self, stream: "Http2Stream") -> None: ...


class Http2Stream(Exchange):
    """One request of a connection."""

    __slots__ = (
        "_closed",
        "_last_progress",
        "_length_declared",
        "_paused",
        "_remaining",
        "_unacknowledged",
        "_unsent",
        "connection",
        "id",
        "outbox",
    )

    def __init__(self, connection: StreamConnection, id_: int) -> None:
        super().__init__(connection.proxy)
        self.connection = connection
        self.local = connection.local
        self.id = id_
        self.outbox = Outbox(connection, id_, self._outbox_full, self._outbox_drained, self._outbox_done)
        self._unacknowledged = 0
        """Bytes of the body that came and that the client may not send anew yet."""
        self._remaining = -1
        """Bytes of the body that are still to come, where the head says how many there are."""
        self._length_declared = False
        """The answer's head says how long its body is."""
        self._paused = False
        self._closed = False
        self._unsent, self._last_progress = 0, 0.0

    @property
    def peer(self) -> Peer:
        return self.connection.peer

    @property
    def protocol(self) -> str:
        return "HTTP/2.0"

    # --- what the client sends

    def headers_received(self, fields: Fields, done: bool, size: int) -> None:
        """The head came.

        Args:
            size: of the header list, in bytes.

        Raises:
            HTTP2ConnectionError: there were too many requests that no instance is needed for.
        """
        self.body_done = done
        try:
            if size > MAX_HEADER_LIST:
                raise HeadError(431, f"the header list is longer than {MAX_HEADER_LIST} bytes")
            self.head = read_request(as_http1(fields, done), self.proxy.underscores)
        except HeadError as error:
            head, body = local_responses.reply(error.status, str(error), self.proxy.wall_clock())
            self.write_response(head, body, True, b"")
            self._closed = True
            self.connection.codec.budget.spend(1)
            return
        if not done and self.head.length >= 0:
            self._remaining = self.head.length
        self.outgoing = upstream_head(self.head, self.connection.forwarding(self.head))
        self.begin()
        if self.state is IDLE and self.status < 429:
            self.connection.codec.budget.spend(1)  # no instance was needed to answer it

    def body_received(self, data: bytes, size: int, done: bool) -> None:
        """Part of the body came; it counts against the client's window until the instance takes it."""
        self._unacknowledged += size
        if self._remaining >= 0:
            self._remaining -= len(data)
            if self._remaining < 0 or (done and self._remaining):
                raise HTTP2StreamError(self.id, ErrorCodes.PROTOCOL_ERROR, "the body is not as long as it says")
        if self._closed or self.state is IDLE:
            self.body_done = self.body_done or done
            self._acknowledge()
            return
        if data or done:
            self.request_body(data, done)
        if not self._paused:
            self._acknowledge()

    def trailers_received(self, lines: bytes) -> None:
        """Trailer fields came, and the end with them."""
        if self._remaining > 0:
            raise HTTP2StreamError(self.id, ErrorCodes.PROTOCOL_ERROR, "the body is not as long as it says")
        if self.state is not IDLE and not self._closed:
            self.request_body(b"", True, lines)
        self.body_done = True

    def lost(self) -> None:
        """The stream or its connection is gone."""
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
        """Once a second: reset a stream whose client takes nothing of an answer that is otherwise over."""
        unsent = self.outbox.size
        if self.state is not IDLE or not unsent or unsent != self._unsent:
            self._unsent, self._last_progress = unsent, now
        elif now - self._last_progress > SEND_SECONDS:
            self._end(ErrorCodes.CANCEL)

    # --- what it gets

    def write_response(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes) -> None:
        if self._closed:
            return
        fields = [(b":status", b"%d" % head.status)]
        fields += [(name.lower(), value) for name, value in split_fields(head.block)]
        self._length_declared = head.length >= 0 and head.status != 204
        if self._length_declared:
            fields.append((b"content-length", b"%d" % head.length))
        empty = done and not data and not trailers
        if not self.connection.codec.send_headers(self.id, fields, empty):
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

    def write_body(self, data: bytes, done: bool, trailers: bytes) -> None:
        if not self._closed:
            self.outbox.add(data, done, trailers)
            self.connection.flush_soon()

    def write_informational(self, head: ResponseHead) -> None:
        if head.status != 101 and not self._closed:
            fields = [(b":status", b"%d" % head.status)]
            fields += [(name.lower(), value) for name, value in split_fields(head.block)]
            self.connection.codec.send_headers(self.id, fields, False)
            self.connection.flush_soon()

    def write_tunnel(self, data: bytes) -> None:
        raise AssertionError("nothing is upgraded in HTTP/2")

    def write_truncated_end(self) -> None:
        if self._length_declared:
            self.reset_response()  # RFC 9113 §8.1.1: a body that is shorter than it says is malformed
        else:
            self.write_body(b"", True, b"")

    def reset_response(self) -> None:
        if not self._closed:
            self._end(ErrorCodes.INTERNAL_ERROR)

    def abort_response(self) -> None:
        self._end(ErrorCodes.INTERNAL_ERROR)

    def finished(self) -> None:
        self._acknowledge()

    def _outbox_full(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_reading()

    def _outbox_drained(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_reading()

    def _outbox_done(self) -> None:
        """All of the answer was sent."""
        self._closed = True
        if not self.body_done:
            # RFC 9113 §8.1: the answer is whole, the rest of the request is not wanted.
            self.connection.codec.reset(self.id, ErrorCodes.NO_ERROR)
            self.connection.flush_soon()
        self.connection.forget(self)

    def _end(self, code: ErrorCodes) -> None:
        self._closed = True
        self.outbox.drop()
        self.connection.codec.reset(self.id, code)
        self.connection.flush_soon()
        self.connection.forget(self)
