"""HTTP/1.1 connections of clients: their state, time limits and tunnels."""

import asyncio
import select
from typing import cast

from activator.frontend.http1_request import (
    BUSY,
    LINGER,
    READ_CHUNKS,
    READ_HEAD,
    READ_LENGTH,
    READ_WHOLE,
    TUNNELLED,
    Http1RequestReader,
)
from activator.frontend.http1_response import BY_CLOSE
from activator.frontend.limits import HEAD_SECONDS, IDLE_BEFORE_CLOSE_SECONDS, SEND_SECONDS
from activator.request import local_responses
from activator.request.states import IDLE, QUEUED, TUNNEL
from activator.routing.proxy_state import ProxyState
from activator.wire.callback_guard import guarded, report_error
from activator.wire.forwarding import Peer
from activator.wire.http1_heads import ResponseHead

KEEP_ALIVE_SECONDS = 180.0
"""How long an idle connection is kept open."""
LINGER_SECONDS = 5.0
"""How long input is read and discarded after the last response, so that the client gets to read it."""
MAX_AHEAD = 65_536
"""Bytes of pipelined requests that are read ahead."""


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer has shut down its side, even if there are unread bytes before that."""
    connection = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP | select.POLLHUP)
    return bool(poll.poll(0))


class Http1Connection(Http1RequestReader, asyncio.Protocol):
    """One connection, which is also the exchange of its current request.

    One object with many attributes for speed: see `Exchange`.
    """

    __slots__ = ("_counted", "_last_progress", "_unsent", "_write_paused")

    def __init__(self, proxy: ProxyState, local: bool = False, *, counted: bool = False) -> None:
        """
        Args:
            local: it was accepted at the gateway for cluster-local hosts.
            counted: it was counted for the limit of its address already.
        """
        super().__init__(proxy)
        self.local = local
        self._counted = counted
        self._write_paused = False
        self._unsent, self._last_progress = 0, 0.0

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
        elif self._mode == READ_HEAD and self._buffer:
            self.proxy.call_soon(self._read_pipelined)

    def data_received(self, data: bytes) -> None:
        try:
            mode = self._mode
            if mode == READ_HEAD:
                memo = self._last_head
                if memo is not None and data == memo.wire and not memo.length and not self._buffer:
                    self.head = memo
                    self.outgoing = self._last_outgoing
                    self.body_done = True
                    self._mode = BUSY
                    self.begin()
                elif memo is not None and data.startswith(memo.wire) and not self._buffer:
                    self.head = memo
                    self.outgoing = self._last_outgoing
                    self._start(memo, data[len(memo.wire) :])
                elif self._expects_plain and not self._buffer and data.endswith(b"\r\n\r\n"):
                    self._read_plain_head(data)
                else:
                    self._read_head(data)
            elif mode == READ_LENGTH:
                self._read_length(data)
            elif mode == READ_CHUNKS:
                self._read_chunks(data)
            elif mode == TUNNELLED:
                if self.upstream is not None:
                    self.upstream.tunnel(data)
            elif mode == BUSY:
                self._buffer += data
                if len(self._buffer) > MAX_AHEAD:
                    self.pause_body()
            else:
                self._remaining -= len(data)
                if self._remaining < 0:
                    self._transport.abort()
        except Exception as error:
            report_error(self, "Http1Connection.data_received", error)

    # --- requests

    @guarded
    def _read_pipelined(self) -> None:
        """Read the next pipelined request."""
        if self._mode == READ_HEAD and self._buffer and not self._write_paused and not self._closing:
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
        if self._mode == READ_HEAD:
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
        lingers = self._mode == LINGER or (self._mode in (READ_LENGTH, READ_CHUNKS) and self.state is IDLE)
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
        quiet = self._mode == READ_HEAD and not self._buffer
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
            self._mode, self._closing = TUNNELLED, True
            early, self._buffer = self._buffer, b""
            if early and self.upstream is not None:
                self.upstream.tunnel(early)
            return
        self._write(head.plain)

    def reset_response(self) -> None:
        self._closing = True
        if self._framing == BY_CLOSE and self._mode != TUNNELLED:
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
        if mode in READ_WHOLE:
            if self._closing:
                self._transport.close()
                return
            self._mode = READ_HEAD
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
