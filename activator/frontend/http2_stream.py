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
from activator.wire.http1_parser import HeadError, RequestHead, ResponseHead, compose, read_request, split
from activator.wire.http2_codec import ANSWERED, MAX_HEADER_LIST, Codec
from activator.wire.http2_fields import Fields, as_http1
from activator.wire.http2_flow import Outbox
from activator.wire.http2_frames import HTTP2StreamError


class StreamConnection(Protocol):
    """The connection, as a stream sees it."""

    app: ProxyState
    peer: Peer
    local: bool
    codec: Codec
    stuck: bool
    unwritten: int

    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def forwarding(self, head: RequestHead) -> bytes: ...
    def forget(self, stream: "Http2Stream") -> None: ...


class Http2Stream(Exchange):
    """One request of a connection."""

    __slots__ = ("_counted", "_held", "_left", "_over", "_paused", "_sent", "_unsent", "id", "outbox", "session")

    def __init__(self, session: StreamConnection, id_: int) -> None:
        super().__init__(session.app)
        self.session = session
        self.local = session.local
        self.id = id_
        self.outbox = Outbox(session, id_, self._out_full, self._out_free, self._out_done)
        self._held = 0
        """Bytes of the body that came and that the client may not send anew yet."""
        self._left = -1
        """Bytes of the body that are still to come, where the head says how many there are."""
        self._counted = False
        """The answer's head says how long its body is."""
        self._paused = False
        self._over = False
        self._unsent, self._sent = 0, 0.0

    @property
    def peer(self) -> Peer:
        return self.session.peer

    @property
    def protocol(self) -> str:
        return "HTTP/2.0"

    # --- what the client sends

    def arrive(self, fields: Fields, done: bool, size: int) -> None:
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
            self.head = read_request(as_http1(fields, done), self.app.underscores)
        except HeadError as error:
            head, body = local_responses.reply(error.status, str(error), self.app.wall_clock())
            self.put(head, body, True, b"")
            self._over = True
            self.session.codec.budget.spend(1)
            return
        if not done and self.head.length >= 0:
            self._left = self.head.length
        self.outgoing = compose(self.head, self.session.forwarding(self.head))
        self.begin()
        if self.state is IDLE and self.status < 429:
            self.session.codec.budget.spend(1)  # no instance was needed to answer it

    def take(self, data: bytes, size: int, done: bool) -> None:
        """Part of the body came; it counts against the client's window until the instance takes it."""
        self._held += size
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0 or (done and self._left):
                raise HTTP2StreamError(self.id, ErrorCodes.PROTOCOL_ERROR, "the body is not as long as it says")
        if self._over or self.state is IDLE:
            self.body_done = self.body_done or done
            self._acknowledge()
            return
        if data or done:
            self.body(data, done)
        if not self._paused:
            self._acknowledge()

    def take_trailers(self, lines: bytes) -> None:
        """Trailer fields came, and the end with them."""
        if self._left > 0:
            raise HTTP2StreamError(self.id, ErrorCodes.PROTOCOL_ERROR, "the body is not as long as it says")
        if self.state is not IDLE and not self._over:
            self.body(b"", True, lines)
        self.body_done = True

    def lost(self) -> None:
        """The stream or its connection is gone."""
        self._over = True
        self.outbox.drop()
        self._acknowledge()
        self.gone()

    def pause_body(self) -> None:
        self._paused = True

    def resume_body(self) -> None:
        self._paused = False
        self._acknowledge()
        self.session.flush_soon()

    def _acknowledge(self) -> None:
        held, self._held = self._held, 0
        if held:
            self.session.codec.acknowledge(held, self.id)

    def sweep(self, now: float) -> None:
        """Once a second: reset a stream whose client takes nothing of an answer that is otherwise over."""
        unsent = self.outbox.size
        if self.state is not IDLE or not unsent or unsent != self._unsent:
            self._unsent, self._sent = unsent, now
        elif now - self._sent > SEND_SECONDS:
            self._end(ErrorCodes.CANCEL)

    # --- what it gets

    def put(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes) -> None:
        if self._over:
            return
        fields = [(b":status", b"%d" % head.status)]
        fields += [(name.lower(), value) for name, value in split(head.block)]
        self._counted = head.length >= 0 and head.status != 204
        if self._counted:
            fields.append((b"content-length", b"%d" % head.length))
        empty = done and not data and not trailers
        if not self.session.codec.send_headers(self.id, fields, empty):
            self._over = True  # the client closed it in the same batch of frames
            self.session.forget(self)
            return
        self.session.flush_soon()
        if self.instance is not None:
            self.session.codec.budget.earn(ANSWERED)
        if empty:
            self._out_done()
        else:
            self.outbox.add(data, done, trailers)

    def put_more(self, data: bytes, done: bool, trailers: bytes) -> None:
        if not self._over:
            self.outbox.add(data, done, trailers)
            self.session.flush_soon()

    def put_interim(self, head: ResponseHead) -> None:
        if head.status != 101 and not self._over:
            fields = [(b":status", b"%d" % head.status)]
            fields += [(name.lower(), value) for name, value in split(head.block)]
            self.session.codec.send_headers(self.id, fields, False)
            self.session.flush_soon()

    def put_tunnel(self, data: bytes) -> None:
        raise AssertionError("nothing is upgraded in HTTP/2")

    def put_cut(self) -> None:
        if self._counted:
            self.put_reset()  # RFC 9113 §8.1.1: a body that is shorter than it says is malformed
        else:
            self.put_more(b"", True, b"")

    def put_reset(self) -> None:
        if not self._over:
            self._end(ErrorCodes.INTERNAL_ERROR)

    def put_abort(self) -> None:
        self._end(ErrorCodes.INTERNAL_ERROR)

    def ended(self) -> None:
        self._acknowledge()

    def _out_full(self) -> None:
        if self.origin is not None:
            self.origin.pause_reading()

    def _out_free(self) -> None:
        if self.origin is not None:
            self.origin.resume_reading()

    def _out_done(self) -> None:
        """All of the answer was sent."""
        self._over = True
        if not self.body_done:
            # RFC 9113 §8.1: the answer is whole, the rest of the request is not wanted.
            self.session.codec.reset(self.id, ErrorCodes.NO_ERROR)
            self.session.flush_soon()
        self.session.forget(self)

    def _end(self, code: ErrorCodes) -> None:
        self._over = True
        self.outbox.drop()
        self.session.codec.reset(self.id, code)
        self.session.flush_soon()
        self.session.forget(self)
