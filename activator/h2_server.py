"""HTTP/2 connections of clients, on the h2 library: streams to exchanges.

A request's fields are written as an HTTP/1.1 head and read by `heads`, so that the rules for what may reach an instance
are in one place for both versions.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from activator import exchange, replies
from activator.exchange import Exchange
from activator.h2_flow import Outbox
from activator.heads import HeadError, Peer, RequestHead, ResponseHead, compose, forwarding, read_request, split
from activator.server import QUIET_SECONDS

if TYPE_CHECKING:
    from activator.gateway import Gateway

MAX_STREAMS = 250
STREAM_WINDOW = 262_144
"""Bytes of a body that a client may send before we take them."""
CONNECTION_WINDOW = 16 * 1024 * 1024
MAX_HEADER_LIST = 65_536
MAX_FRAME = 16_384
"""What RFC 9113 §6.5.2 begins with; we do not announce more."""
ABUSE_PER_SECOND = 400
"""Resets, pings and changes of settings that a client may send in a second, on average, before it is cut off."""
IDLE_SECONDS = 300.0
GOAWAY_SECONDS = 5.0
LINGER_SECONDS = 2.0


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, app: "Gateway", peer: Peer, local: bool) -> None:
        self.app = app
        self.peer = peer
        self.local = local
        # What we send was checked and made lower case when it was read; cookies are joined in `_as_http1`.
        config = h2.config.H2Configuration(
            client_side=False, header_encoding=None, normalize_inbound_headers=False,
            validate_outbound_headers=False, normalize_outbound_headers=False,
        )  # fmt: skip
        self.connection = h2.connection.H2Connection(config)
        self.streams: dict[int, Stream] = {}
        self.stuck = False
        self.unwritten = 0
        self._flushing = False
        self._retired = False
        self._retiring = 0.0
        self._lingering: asyncio.TimerHandle | None = None
        self._abuse = 0.0
        self._known = (b"\n", b"")
        self._since = app.time()
        self._handlers: dict[type, Callable[[Any], None]] = {
            h2.events.RequestReceived: self._request,
            h2.events.DataReceived: self._data,
            h2.events.TrailersReceived: self._trailers,
            h2.events.StreamEnded: self._ended,
            h2.events.StreamReset: self._reset,
            h2.events.WindowUpdated: self._window,
            h2.events.RemoteSettingsChanged: self._settings,
            h2.events.PingReceived: self._ping,
            h2.events.ConnectionTerminated: self._terminated,
        }

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.app.connections.add(self)
        connection = self.connection
        codes = h2.settings.SettingCodes
        connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
                codes.ENABLE_PUSH: 0,
            },
        )
        connection.decoder.max_header_list_size = MAX_HEADER_LIST
        connection.initiate_connection()
        connection.increment_flow_control_window(CONNECTION_WINDOW)
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.app.connections.discard(self)
        if self._lingering is not None:
            self._lingering.cancel()
        for stream in list(self.streams.values()):
            stream.lost()
        self.streams.clear()

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        self.stuck = True

    def resume_writing(self) -> None:
        self.stuck = False
        for stream in list(self.streams.values()):
            stream.outbox.pump()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._since = self.app.time()
        try:
            events = self.connection.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._close()
            return
        for event in events:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)
        # The library looks at a frame's length only once all of the frame is there, and it may say 16 MiB.
        if len(self.connection.incoming_buffer._data) > MAX_FRAME + 9:
            self._close(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
        self.flush()

    def forwarding(self, head: RequestHead) -> bytes:
        """The forwarding fields; the same for all requests of a client that is not a proxy itself."""
        if head.forwarded is not None or head.has_forwarded:
            return forwarding(self.peer, head)
        if self._known[0] != head.authority:
            self._known = (head.authority, forwarding(self.peer, head))
        return self._known[1]

    def flush(self) -> None:
        """Write what the library has made."""
        self._flushing = False
        self.unwritten = 0
        data = self.connection.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def flush_soon(self) -> None:
        """Write in this turn of the loop, with whatever else is made in it."""
        if not self._flushing:
            self._flushing = True
            self.app.call_soon(self.flush)

    def _close(self, code: h2.errors.ErrorCodes | None = None) -> None:
        if code is not None:
            self.connection.close_connection(code)
        self.flush()
        self.transport.close()

    def forget(self, stream: "Stream") -> None:
        """A stream is over in both directions."""
        self.streams.pop(stream.id, None)
        self._since = self.app.time()
        if self._retired and not self.streams:
            self._linger()

    def _linger(self) -> None:
        """Everything is said: let the client close, which has seen the GOAWAY by then.

        Had it sent something just now, closing here would reset the connection, and it might lose answers that it has
        not read yet.
        """
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._close)

    def sweep(self, now: float) -> None:
        self._abuse = max(0.0, self._abuse - ABUSE_PER_SECOND)
        if not self.streams and now - self._since > IDLE_SECONDS:
            self._close(h2.errors.ErrorCodes.NO_ERROR)

    def retire(self) -> None:
        """The process wants to end. May be called again.

        Many clients take GOAWAY for the end of all their streams, though RFC 9113 §6.8 says otherwise: it is sent once
        no stream was open for a while, or when there was no such while for `GOAWAY_SECONDS`.
        """
        now = self.app.time()
        self._retiring = self._retiring or now
        quiet = not self.streams and now - self._since > QUIET_SECONDS
        if not self._retired and (quiet or now - self._retiring > GOAWAY_SECONDS):
            self._retired = True
            self.connection.close_connection(h2.errors.ErrorCodes.NO_ERROR)
            # After a GOAWAY of its own the library takes no frame; the streams that are there must still be carried.
            self.connection.state_machine.state = h2.connection.ConnectionState.SERVER_OPEN
            self.flush()
            if not self.streams:
                self._linger()

    def abort(self) -> None:
        self.transport.abort()

    def _abused(self) -> bool:
        """Rapid resets and floods of cheap frames cost us more than the client (CVE-2023-44487 and its kin)."""
        self._abuse += 1
        if self._abuse > ABUSE_PER_SECOND:
            self._close(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            return True
        return False

    # --- events

    def _request(self, event: h2.events.RequestReceived) -> None:
        assert event.stream_id is not None
        if self._retired:
            with contextlib.suppress(
                h2.exceptions.ProtocolError
            ):  # the client may have taken it back in the same batch
                self.connection.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        stream = self.streams[event.stream_id] = Stream(self, event.stream_id)
        stream.arrive(cast("list[tuple[bytes, bytes]]", event.headers or []), event.stream_ended is not None)

    def _data(self, event: h2.events.DataReceived) -> None:
        assert event.stream_id is not None
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self.connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        else:
            stream.take(event.data or b"", event.flow_controlled_length or 0, event.stream_ended is not None)

    def _trailers(self, event: h2.events.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.take_trailers(cast("list[tuple[bytes, bytes]]", event.headers or []))

    def _ended(self, event: h2.events.StreamEnded) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.take_end()

    def _reset(self, event: h2.events.StreamReset) -> None:
        stream = self.streams.pop(event.stream_id or 0, None)
        if stream is not None:
            stream.lost()
        self._abused()

    def _window(self, event: h2.events.WindowUpdated) -> None:
        streams = [self.streams.get(event.stream_id)] if event.stream_id else list(self.streams.values())
        for stream in streams:
            if stream is not None:
                stream.outbox.pump()

    def _settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        if not self._abused():
            for stream in list(self.streams.values()):
                stream.outbox.pump()

    def _ping(self, event: h2.events.PingReceived) -> None:
        self._abused()

    def _terminated(self, event: h2.events.ConnectionTerminated) -> None:
        if not self.streams:
            self.transport.close()
        self._retired = True


class Stream(Exchange):
    """One request of a connection."""

    __slots__ = ("_held", "_over", "_paused", "id", "outbox", "session")

    def __init__(self, session: Session, id_: int) -> None:
        super().__init__(session.app)
        self.session = session
        self.local = session.local
        self.id = id_
        self.outbox = Outbox(session, id_, self._out_full, self._out_free, self._out_done)
        self._held = 0
        self._paused = False
        self._over = False

    @property
    def peer(self) -> Peer:
        return self.session.peer

    @property
    def protocol(self) -> str:
        return "HTTP/2.0"

    # --- what the client sends

    def arrive(self, fields: list[tuple[bytes, bytes]], done: bool) -> None:
        """The head came."""
        self.body_done = done
        try:
            self.head = read_request(_as_http1(fields, done))
        except HeadError as error:
            head, body = replies.reply(error.status, str(error))
            self.put(head, body, True, b"")
            self._over = True
            return
        self.outgoing = compose(self.head, self.session.forwarding(self.head))
        self.begin()

    def take(self, data: bytes, size: int, done: bool) -> None:
        """Part of the body came; it counts against the client's window until the instance takes it."""
        self._held += size
        if self._over or self.stage == exchange.IDLE:
            self._acknowledge()
            return
        if data or done:
            self.body(data, done and not self.body_done)
        if not self._paused:
            self._acknowledge()

    def take_trailers(self, fields: list[tuple[bytes, bytes]]) -> None:
        self.trailers = b"".join(b"%b: %b\r\n" % field for field in fields)
        if self.stage != exchange.IDLE:
            self.body(b"", True, self.trailers)

    def take_end(self) -> None:
        if not self.body_done and self.stage != exchange.IDLE:
            self.body(b"", True, self.trailers)
        self.body_done = True

    def lost(self) -> None:
        """The stream or its connection is gone."""
        self._over = True
        self.outbox.drop()
        self.gone()

    def pause_body(self) -> None:
        self._paused = True

    def resume_body(self) -> None:
        self._paused = False
        self._acknowledge()
        self.session.flush_soon()

    def _acknowledge(self) -> None:
        held, self._held = self._held, 0
        if held and not self.session.transport.is_closing():
            self.session.connection.acknowledge_received_data(held, self.id)

    # --- what it gets

    def put(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes) -> None:
        if self._over:
            return
        fields = [(b":status", b"%d" % head.status)]
        fields += [(name.lower(), value) for name, value in split(head.block)]
        if head.length >= 0 and head.status != 204:
            fields.append((b"content-length", b"%d" % head.length))
        empty = done and not data and not trailers
        self.session.connection.send_headers(self.id, fields, end_stream=empty)
        self.session.flush_soon()
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
            self.session.connection.send_headers(self.id, fields)
            self.session.flush_soon()

    def put_tunnel(self, data: bytes) -> None:
        raise AssertionError("nothing is upgraded in HTTP/2")

    def put_cut(self) -> None:
        self.put_more(b"", True, b"")

    def put_reset(self) -> None:
        if not self._over:
            self._over = True
            self.outbox.drop()
            self._reset(h2.errors.ErrorCodes.INTERNAL_ERROR)
            self.session.forget(self)

    def ended(self) -> None:
        if self._held:
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
            self._reset(h2.errors.ErrorCodes.NO_ERROR)
        self.session.forget(self)

    def _reset(self, code: h2.errors.ErrorCodes) -> None:
        try:
            self.session.connection.reset_stream(self.id, code)
        except h2.exceptions.ProtocolError:
            return  # it was closed already
        self.session.flush_soon()


_PSEUDO = (b":method", b":path", b":authority", b":scheme")


def _as_http1(fields: list[tuple[bytes, bytes]], done: bool) -> bytes:
    """The same request as an HTTP/1.1 head. Raises: HeadError."""
    pseudo = {name: value for name, value in fields if name in _PSEUDO}
    lines = [b"%b %b HTTP/1.1" % (pseudo.get(b":method", b""), pseudo.get(b":path", b""))]
    names = {name for name, _ in fields}
    if b":authority" in pseudo:
        lines.append(b"Host: " + pseudo[b":authority"])
    cookies = []
    for name, value in fields:
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise HeadError(400, "a header field cannot be read")
        if name == b"cookie":
            cookies.append(value)  # RFC 9113 §8.2.3: HTTP/1.1 wants them in one field
        elif name[:1] != b":" and not (name == b"host" and b":authority" in pseudo):
            lines.append(b"%b: %b" % (name, value))
    if cookies:
        lines.append(b"cookie: " + b"; ".join(cookies))
    if not done and b"content-length" not in names:
        lines.append(b"Transfer-Encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n"
