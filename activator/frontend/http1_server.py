"""HTTP/1.1 connections of clients: reads requests and writes their responses."""

import asyncio
import select
from typing import cast

from activator.frontend.http1_response import BY_CLOSE, Http1ResponseWriter
from activator.frontend.limits import HEAD_SECONDS, IDLE_BEFORE_CLOSE_SECONDS, LINGER_BYTES, SEND_SECONDS
from activator.request import local_responses
from activator.request.states import IDLE, QUEUED, SENT, TUNNEL
from activator.routing.proxy_state import ProxyState
from activator.wire.callback_guard import guarded, report_error
from activator.wire.chunked import ChunkedReader
from activator.wire.forwarding import Peer
from activator.wire.http1_parser import (
    CHUNKED,
    MAX_CACHED_HEAD,
    MAX_HEAD,
    HeadError,
    RequestHead,
    ResponseHead,
    read_plain_request,
    read_request,
    upstream_head,
)
from activator.wire.http2_frames import PREFACE

KEEP_ALIVE_SECONDS = 180.0
"""How long an idle connection is kept open."""
LINGER_SECONDS = 5.0
"""How long input is read and discarded after the last response, so that the client gets to read it."""
MAX_AHEAD = 65_536
"""Bytes of pipelined requests that are read ahead."""

_HEAD, _LENGTH, _CHUNKS, _BUSY, _TUNNEL, _LINGER = range(6)
_WHOLE = (_BUSY, _TUNNEL)
"""The request has been read to its end."""


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer has shut down its side, even if there are unread bytes before that."""
    connection = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP | select.POLLHUP)
    return bool(poll.poll(0))


class Http1Connection(Http1ResponseWriter, asyncio.Protocol):
    """One connection, which is also the exchange of its current request.

    One object with many attributes for speed: see `Exchange`.
    """

    __slots__ = (
        "_buffer", "_chunks", "_closing", "_counted", "_expects_plain", "_forwarding_cache", "_framing",
        "_last_activity", "_last_head", "_last_outgoing", "_last_progress", "_mode", "_paused", "_peer", "_remaining",
        "_transport", "_unsent", "_write_paused",
    )  # fmt: skip

    def __init__(self, proxy: ProxyState, local: bool = False, *, counted: bool = False) -> None:
        """
        Args:
            local: it was accepted at the gateway for cluster-local hosts.
            counted: it was counted for the limit of its address already.
        """
        super().__init__(proxy)
        self.local = local
        self._counted = counted
        self._mode = _HEAD
        self._buffer = b""
        self._last_head: RequestHead | None = None
        self._last_outgoing = b""
        self._remaining = 0
        self._chunks = ChunkedReader()
        self._paused = False
        self._write_paused = False
        self._last_activity = self._last_progress = 0.0
        self._unsent = 0
        self._forwarding_cache = (b"\n", b"")
        self._expects_plain = True
        """Whether to try `read_plain_request`; False once it could not read a head of this connection."""

    @property
    def peer(self) -> Peer:
        return self._peer

    # --- the connection

    @property
    def connected(self) -> bool:
        """Whether it was ever ready for requests; if so, it leaves the count of its address by itself."""
        return self._last_activity > 0

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write
        address = peer_address(transport.get_extra_info("peername"))
        tls = transport.get_extra_info("ssl_object")
        self._peer = Peer(address, b"https" if tls else b"http")
        self._last_activity = self._last_progress = self.proxy.time()
        self.proxy.add_connection(self)
        if not self._counted:
            self._counted = self.proxy.connection_limit.enter(address)
            if not self._counted:
                head, body = local_responses.too_many_connections(self.proxy.wall_clock())
                self._write(head.plain + body)
                self._closing = True
                self._transport.close()
                return
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._upgrade_to_http2(b"")

    @guarded
    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.connections.discard(self)
        if self._counted:
            self._counted = False
            self.proxy.connection_limit.leave(self._peer.address)
        self._closing = True
        if self.state is not IDLE:
            self.client_gone()

    def eof_received(self) -> None:
        # A client that half-closes counts as disconnected, as in Go and nginx: it must not hold a slot.
        return None

    @guarded
    def pause_writing(self) -> None:
        self._write_paused = True
        if self.upstream is not None:
            self.upstream.pause_reading()

    @guarded
    def resume_writing(self) -> None:
        self._write_paused = False
        if self.upstream is not None:
            self.upstream.resume_reading()
        elif self._mode == _HEAD and self._buffer:
            self.proxy.call_soon(self._read_pipelined)

    def data_received(self, data: bytes) -> None:
        try:
            mode = self._mode
            if mode == _HEAD:
                memo = self._last_head
                if memo is not None and data == memo.wire and not memo.length and not self._buffer:
                    self.head = memo
                    self.outgoing = self._last_outgoing
                    self.body_done = True
                    self._mode = _BUSY
                    self.begin()
                elif memo is not None and data.startswith(memo.wire) and not self._buffer:
                    self.head = memo
                    self.outgoing = self._last_outgoing
                    self._start(memo, data[len(memo.wire) :])
                elif self._expects_plain and not self._buffer and data.endswith(b"\r\n\r\n"):
                    self._read_plain_head(data)
                else:
                    self._read_head(data)
            elif mode == _LENGTH:
                self._read_length(data)
            elif mode == _CHUNKS:
                self._read_chunks(data)
            elif mode == _TUNNEL:
                if self.upstream is not None:
                    self.upstream.tunnel(data)
            elif mode == _BUSY:
                self._buffer += data
                if len(self._buffer) > MAX_AHEAD:
                    self.pause_body()
            else:
                self._remaining -= len(data)
                if self._remaining < 0:
                    self._transport.abort()
        except Exception as error:
            report_error(self, "Http1Connection.data_received", error)

    # --- reading requests

    def _read_head(self, data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        else:
            self._last_activity = self.proxy.time()
        while data[:2] == b"\r\n":  # RFC 9112 §2.2: ignore empty lines before a request
            data = data[2:]
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            self._read_part(data)
            return
        wire = data[: end + 4]
        if wire == PREFACE[:18]:
            self._upgrade_to_http2(data)
            return
        try:
            head = read_request(wire, self.proxy.underscores)
        except HeadError as error:
            self._reject(error.status, str(error))
            return
        self.head = head
        self.outgoing = upstream_head(head, self._forwarding(head))
        if len(wire) <= MAX_CACHED_HEAD:
            self._last_head, self._last_outgoing = head, self.outgoing
        self._start(head, data[end + 4 :])

    def _read_plain_head(self, data: bytes) -> None:
        """Read a head that is all of the data. Most such requests have no body, and no field to remove."""
        head = read_plain_request(data, self._forwarding_cache[0])
        if head is None:
            # A client that sends `Connection: keep-alive` sends it with each request.
            self._expects_plain = False
            self._read_head(data)
            return
        self.head = head
        cached = self._forwarding_cache
        forwarded = cached[1] if cached[0] == head.authority else self._forwarding(head)
        self.outgoing = b"%b%b\r\n" % (data[:-2], forwarded)
        if len(data) <= MAX_CACHED_HEAD:
            self._last_head, self._last_outgoing = head, self.outgoing
        self.body_done = True
        self._mode = _BUSY
        self.begin()

    def _forwarding(self, head: RequestHead) -> bytes:
        """Return the forwarding fields; cached for a client that sends none of its own."""
        if head.forwarded is not None:
            return self.proxy.proxies.fields(self._peer, head)
        if self._forwarding_cache[0] != head.authority:
            self._forwarding_cache = (head.authority, self.proxy.proxies.fields(self._peer, head))
        return self._forwarding_cache[1]

    def clear_cached_heads(self) -> None:
        """Called when the rules for forwarding fields change."""
        self._last_head, self._forwarding_cache = None, (b"\n", b"")

    def _read_part(self, data: bytes) -> None:
        """The head is incomplete; reject it now if more bytes cannot make it valid."""
        if len(data) >= MAX_HEAD:
            long_target = b"\r\n" not in data[:MAX_HEAD]
            self._reject(414 if long_target else 431, f"the request headers are longer than {MAX_HEAD} bytes")
        elif data.count(b"\n") != data.count(b"\r\n") or b"\0" in data:
            self._reject(400, "a line of the request headers does not end with CRLF")
        else:
            self._buffer = data

    def _start(self, head: RequestHead, rest: bytes) -> None:
        """Start a request; `rest` is what follows its head."""
        length = head.length
        body = b""
        if length == CHUNKED:
            chunks = self._chunks = ChunkedReader()
            body = chunks.feed(rest)
            if chunks.error:
                self._reject(400, chunks.error)
                return
            self.body_done, self.trailers = chunks.done, chunks.trailers
            self._mode = _BUSY if chunks.done else _CHUNKS
            self._buffer = chunks.rest
        elif len(rest) >= length:
            self.body_done, self._mode = True, _BUSY
            body, self._buffer = (rest[:length], rest[length:]) if length else (b"", rest)
        else:
            self.body_done, self._mode = False, _LENGTH
            body, self._remaining = rest, length - len(rest)
        if body:
            self.pending = [body]
            self.pending_size = len(body)
        elif not self.body_done:
            self.pending_size = 1  # so that `_finish` resets the body
        self.begin()

    def _read_length(self, data: bytes) -> None:
        left = self._remaining - len(data)
        if left <= 0:
            self._mode = _BUSY
            if left:
                data, self._buffer = data[:left], data[left:]
        self._remaining = left
        self._forward_body(data, left <= 0)

    def _read_chunks(self, data: bytes) -> None:
        chunks = self._chunks
        body = chunks.feed(data)
        if chunks.error:
            if self.state is SENT or self.state is QUEUED:
                self._closing = True
                self.reject(400, chunks.error)
            else:
                self._transport.abort()
            return
        if chunks.done:
            self._mode, self._buffer = _BUSY, chunks.rest
        if body or chunks.done:
            self._forward_body(body, chunks.done, chunks.trailers)

    def _forward_body(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        if self.state is not IDLE:
            self.request_body(data, done, trailers)
        elif done:
            self.finished()  # the response is complete already; the connection can take its next request

    def _reject(self, status: int, text: str) -> None:
        """Respond to an invalid request and close: it is unknown where the next request would start."""
        head, body = local_responses.reply(status, text, self.proxy.wall_clock(), b"Connection: close\r\n")
        self._write(head.plain + body)
        self._linger()

    def _linger(self) -> None:
        """Close, but let the client read the response first: with unread input, the kernel would discard it."""
        self.discard_input()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    @guarded
    def _read_pipelined(self) -> None:
        """Read the next pipelined request."""
        if self._mode == _HEAD and self._buffer and not self._write_paused and not self._closing:
            data, self._buffer = self._buffer, b""
            self.resume_body()
            self._read_head(data)

    def _upgrade_to_http2(self, data: bytes) -> None:
        from activator.frontend.http2_server import Http2Connection  # loaded at the first use

        self.proxy.connections.discard(self)
        self._counted = False
        connection = Http2Connection(self.proxy, self._peer, self.local)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        if data:
            connection.data_received(data)

    def sweep(self, now: float) -> None:
        """Enforce the time limits; called once a second."""
        if self._is_stalled(now):
            self._transport.abort()
            return
        if self._mode == _HEAD:
            if self._buffer:
                if now - self._last_activity > HEAD_SECONDS:
                    self._reject(408, f"the request headers did not arrive within {HEAD_SECONDS:g} s")
            elif now - self._last_activity > KEEP_ALIVE_SECONDS:
                self._transport.close()
            return
        # While reading is paused, the loop does not notice that the client disconnected; the kernel does.
        if self._paused and self.state is QUEUED and _hung_up(self._transport):
            self._transport.abort()
            return
        lingers = self._mode == _LINGER or (self._mode in (_LENGTH, _CHUNKS) and self.state is IDLE)
        if lingers and now - self._last_activity > LINGER_SECONDS:
            self._transport.abort()

    def _is_stalled(self, now: float) -> bool:
        """Whether the client has read nothing of a finished response for too long."""
        unsent = self._transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent or self.state is not IDLE:
            self._unsent, self._last_progress = unsent, now
        return now - self._last_progress > SEND_SECONDS

    def retire(self) -> None:
        """The worker drains: close now if idle, otherwise after the next response. May be called again."""
        quiet = self._mode == _HEAD and not self._buffer
        if quiet and self.proxy.time() - self._last_activity > IDLE_BEFORE_CLOSE_SECONDS:
            self._transport.close()
        else:
            self._closing = True

    def abort(self) -> None:
        if self.state is TUNNEL:
            self.send_close_frame()
            self._transport.close()  # written bytes are sent first
        else:
            self._transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for the first byte of a request."""
        return self._mode == _HEAD and not self._buffer and not self._closing

    def skip_body(self) -> None:
        """Expect no body of the current request: the client will not send it."""
        self._mode = _BUSY

    def discard_input(self) -> None:
        """Read no more requests; the peer closes the connection."""
        self._mode, self._remaining, self._buffer = _LINGER, LINGER_BYTES, b""
        self._closing = True
        self._last_activity = self.proxy.time()
        self.resume_body()

    def abort_on_error(self) -> None:
        """An unexpected exception was raised: end the connection."""
        self._closing = True
        self._transport.abort()

    # --- see Exchange

    def abort_response(self) -> None:
        self.abort_on_error()

    def write_informational(self, head: ResponseHead) -> None:
        if not self.head.version:
            return
        if head.status == 101:
            upgrade = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
            self._write(head.plain[:-2] + upgrade + b"\r\n")
            self._mode, self._closing = _TUNNEL, True
            early, self._buffer = self._buffer, b""
            if early and self.upstream is not None:
                self.upstream.tunnel(early)
            return
        self._write(head.plain)

    def reset_response(self) -> None:
        self._closing = True
        if self._framing == BY_CLOSE and self._mode != _TUNNEL:
            self._transport.abort()  # a normal close would mark the end of the body

    def pause_body(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_body(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def finished(self) -> None:
        mode = self._mode
        if mode in _WHOLE:
            if self._closing:
                self._transport.close()
                return
            self._mode = _HEAD
            self._last_activity = self.proxy.now
            if self._paused:
                self.resume_body()
            if self._buffer:
                self.proxy.call_soon(self._read_pipelined)
        elif self._transport.is_closing():
            pass
        elif self._closing or self.head.expects:
            # The client may or may not send the body now, so what follows cannot be parsed.
            self._linger()
        else:
            self._last_activity = self.proxy.now
            self.resume_body()


def peer_address(peer: object) -> bytes:
    """Return the IP address of a socket's peer name."""
    return str(peer[0]).encode() if isinstance(peer, tuple) and peer else b"unknown"
