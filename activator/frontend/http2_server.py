"""HTTP/2 connections of clients: streams, time limits and a graceful shutdown."""

import asyncio
from typing import cast

import structlog

from activator.frontend.http2_stream import Http2Stream
from activator.frontend.limits import HEAD_SECONDS, IDLE_BEFORE_CLOSE_SECONDS, LINGER_BYTES, SEND_SECONDS
from activator.routing.proxy_state import ProxyState
from activator.wire.callback_guard import guarded
from activator.wire.forwarding import Peer
from activator.wire.http1_heads import RequestHead
from activator.wire.http2_codec import MAX_HEADER_LIST
from activator.wire.http2_errors import ErrorCode, Setting
from activator.wire.http2_fields import HeaderList
from activator.wire.http2_protocol import STREAM_WINDOW, Http2Protocol

log = structlog.get_logger()

MAX_STREAMS = 250
REFUSED = 3
"""Charges for a stream beyond `MAX_STREAMS`: its header list must still be decoded, although clients know the limit."""
IDLE_SECONDS = 300.0
GOAWAY_SECONDS = 5.0
LINGER_SECONDS = 2.0


class Http2Connection(Http2Protocol[Http2Stream]):
    """One connection.

    Attributes beyond a dozen are timestamps and flags of the shutdown, which only the sweep reads.
    """

    def __init__(self, proxy: ProxyState, peer: Peer, local: bool) -> None:
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
            Setting.ENABLE_PUSH: 0,
        }
        super().__init__(proxy.call_soon, proxy.new_codec, settings, client=False)
        self.proxy = proxy
        self.peer = peer
        self.local = local
        self._reading = True
        self._retired = False
        self._retiring = 0.0
        self._lingering: asyncio.TimerHandle | None = None
        self._remaining = 0
        """Bytes that may still be read and discarded after the connection has ended."""
        self._forwarding_cache = (b"\n", b"")
        self.rules = 0
        """Changes when the rules for forwarding fields do."""
        self._last_activity = self._last_whole_block = self._last_progress = proxy.time()
        """When bytes last arrived or a stream ended; when no header block was incomplete; when bytes were last sent."""
        self._unsent = 0

    # --- the connection

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.proxy.add_connection(self)
        self.flush()

    @guarded
    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.connections.discard(self)
        self.proxy.connection_limit.leave(self.peer.address)
        self.codec.ended = True
        if self._lingering is not None:
            self._lingering.cancel()
        self._lose_all("the connection ended")

    def eof_received(self) -> None:
        return None

    @guarded
    def pause_writing(self) -> None:
        """The client does not read. Stop reading from it as well, or responses would accumulate here."""
        self.write_paused = True
        self._hold(reading=False)

    @guarded
    def resume_writing(self) -> None:
        self.write_paused = False
        for stream in list(self.streams.values()):
            stream.outbox.pump()
        self.flush()
        self._read()

    @guarded
    def data_received(self, data: bytes) -> None:
        if self.codec.ended:
            self._remaining -= len(data)
            if self._remaining < 0:
                self.transport.abort()
            return
        self._last_activity = self.proxy.time()
        self.codec.feed(data)
        self._read()

    def _read(self) -> None:
        if not self._read_pending and not self.write_paused:
            self._read_pending = self.proxy.read_scheduler.run(self._work)
            self._hold(reading=not self._read_pending)

    def _work(self, until: float) -> bool:
        """Read the buffered frames until `until`; returns whether there are more."""
        more = not self.write_paused and self.codec.work(until)
        if not self.codec.mid_block:
            self._last_whole_block = self._last_activity
        self.flush()
        if not more and self._read_pending:
            self._read_pending = False
            self._hold(reading=True)
        return more

    def _hold(self, *, reading: bool) -> None:
        reading = reading and not self.write_paused
        if reading != self._reading and not self.transport.is_closing():
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def clear_cached_heads(self) -> None:
        """Called when the rules for forwarding fields change."""
        self._forwarding_cache = (b"\n", b"")
        self.rules += 1

    def forwarding(self, head: RequestHead) -> bytes:
        """Return the forwarding fields; cached for a client that sends none of its own."""
        if head.forwarded is not None:
            return self.proxy.proxies.fields(self.peer, head)
        if self._forwarding_cache[0] != head.authority:
            self._forwarding_cache = (head.authority, self.proxy.proxies.fields(self.peer, head))
        return self._forwarding_cache[1]

    def forget(self, stream: Http2Stream) -> None:
        """A stream has ended in both directions."""
        self.streams.pop(stream.id, None)
        self._last_activity = self.proxy.time()
        if self._retired and not self.streams:
            self._linger(LINGER_SECONDS)

    def _linger(self, seconds: float) -> None:
        """Everything was sent: let the client close, after it has read the GOAWAY.

        Closing here while the client is sending would reset the connection, and it could lose responses that it has
        not read yet.
        """
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(seconds, self.transport.close)

    def sweep(self, now: float) -> None:
        """Enforce the time limits; called once a second."""
        if self.codec.ended:
            return
        if self.codec.mid_block and now - self._last_whole_block > HEAD_SECONDS:
            self.codec.fail(ErrorCode.ENHANCE_YOUR_CALM, f"a header block took longer than {HEAD_SECONDS:g} s")
        elif not self.streams and now - self._last_activity > IDLE_SECONDS:
            self.codec.fail(ErrorCode.NO_ERROR, "it was idle")
        elif self._is_stalled(now):
            self.transport.abort()
        else:
            for stream in list(self.streams.values()):
                stream.sweep(now)

    def _is_stalled(self, now: float) -> bool:
        """Whether the client has not read anything for too long."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._last_progress = unsent, now
        return now - self._last_progress > SEND_SECONDS

    def retire(self) -> None:
        """The worker drains. May be called again.

        Many clients abort all their streams at GOAWAY, against RFC 9113 §6.8. So it is sent when no stream has been
        open for `IDLE_BEFORE_CLOSE_SECONDS`, or after `GOAWAY_SECONDS` at the latest.
        """
        now = self.proxy.time()
        self._retiring = self._retiring or now
        quiet = not self.streams and now - self._last_activity > IDLE_BEFORE_CLOSE_SECONDS
        if not self._retired and not self.codec.ended and (quiet or now - self._retiring > GOAWAY_SECONDS):
            self._retired = True
            self.codec.send_goaway(ErrorCode.NO_ERROR)
            self.flush()
            if not self.streams:
                self._linger(LINGER_SECONDS)

    def abort(self) -> None:
        self.transport.abort()

    # --- see http2_codec.FrameHandler

    def headers_received(self, stream: int, headers: HeaderList, done: bool) -> None:
        if self._retired or len(self.streams) >= MAX_STREAMS:
            self.codec.reset(stream, ErrorCode.REFUSED_STREAM)
            self.codec.budget.spend(REFUSED)
            return
        opened = self.streams[stream] = Http2Stream(self, stream)
        opened.headers_received(headers, done)

    def goaway_received(self, last: int) -> None:
        self._retired = True
        if not self.streams:
            self.flush()
            self.transport.close()

    def connection_failed(self, text: str) -> None:
        """Send GOAWAY and close. Input is discarded for a while, so that the client gets to read it."""
        log.debug("HTTP/2 connection ended", client=self.peer.address.decode(), reason=text)
        self.flush()
        self._remaining = LINGER_BYTES
        self._lose_all("the connection ended")
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
            self._linger(LINGER_SECONDS)
        else:
            self.transport.close()

    def _lost(self, stream: Http2Stream, reason: str, *, unsent: bool = False) -> None:
        try:
            stream.lost()
        except Exception as error:  # the other streams must end too
            log.exception("stream clean-up failed", stream=stream.id, error=repr(error))
