"""What both ends of HTTP/2 share: a connection whose codec passes frames to the connection's streams."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from activator.wire.http2_codec import CodecFactory, CodecOptions
from activator.wire.http2_errors import ErrorCode, Setting
from activator.wire.http2_fields import Fields, HeaderList
from activator.wire.http2_flow import Outbox
from activator.wire.memo import Memo

CONNECTION_WINDOW = 16 * 1024 * 1024
"""Bytes of bodies that a peer may send on a connection before they are taken."""
STREAM_WINDOW = 262_144
"""The same for one stream."""


class ProtocolStream(Protocol):
    """A stream of a connection."""

    id: int
    outbox: Outbox

    def body_received(self, data: bytes, size: int, done: bool) -> None:
        """Part of the body arrived. Args: size: bytes that count for flow control."""
        ...

    def trailers_received(self, lines: bytes) -> None:
        """Trailer fields arrived, and the end of the stream with them."""
        ...


S = TypeVar("S", bound=ProtocolStream)


class Http2Protocol(asyncio.Protocol, Generic[S]):
    """One connection; implements `http2_codec.FrameHandler` as far as it is the same for clients and instances."""

    transport: asyncio.Transport

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        new_codec: CodecFactory,
        settings: Mapping[Setting, int],
        *,
        client: bool,
    ) -> None:
        """
        Args:
            call_soon: of the event loop.
            settings: ours.
            client: the peer is a server.
        """
        self.codec = new_codec(self, time.perf_counter, CodecOptions(client, settings, CONNECTION_WINDOW))
        self.streams: dict[int, S] = {}
        self.write_paused = False
        """The transport's buffer is full."""
        self.unflushed = 0
        """Bytes of bodies handed to the library since the last write."""
        self.sent_heads: Memo[bytes, Fields] = Memo()
        """Heads and trailers as in HTTP/1, and their header lists."""
        self._call_soon = call_soon
        self._flushing = False
        self._read_pending = False
        """Bytes wait in the codec until this connection may read again."""

    def flush(self) -> None:
        """Write what the codec has produced."""
        self._flushing = False
        self.unflushed = 0
        data = self.codec.output()
        if data and not self.transport.is_closing():
            self.transport.write(data)
        while self.codec.pending and not self.codec.ended:
            self.codec.work(0.0)

    def flush_soon(self) -> None:
        """Write once in this iteration of the loop, with whatever else is produced in it."""
        if not self._flushing:
            self._flushing = True
            self._call_soon(self.flush)

    @abstractmethod
    def forget(self, stream: S) -> None:
        """A stream has ended."""

    @abstractmethod
    def _lost(self, stream: S, reason: str, *, unsent: bool = False) -> None:
        """Tell a stream that it was ended by the peer, or because of an error.

        Args:
            unsent: the peer did not process anything of it.
        """

    # --- see http2_codec.FrameHandler

    @abstractmethod
    def headers_received(self, stream: int, headers: HeaderList, done: bool) -> None:
        """See `http2_codec.FrameHandler`."""

    def body_received(self, stream: int, data: bytes, size: int, done: bool) -> None:
        """See `http2_codec.FrameHandler`."""
        receiver = self.streams.get(stream)
        if receiver is None:
            self.codec.acknowledge(size, stream)
        else:
            receiver.body_received(data, size, done)

    def trailers_received(self, stream: int, lines: bytes) -> None:
        """See `http2_codec.FrameHandler`."""
        receiver = self.streams.get(stream)
        if receiver is not None:
            receiver.trailers_received(lines)

    def stream_reset(self, stream: int, code: int, fault: str) -> None:
        """See `http2_codec.FrameHandler`."""
        ended = self.streams.pop(stream, None)
        if ended is not None:
            self._lost(ended, fault or "it reset the stream", unsent=code == ErrorCode.REFUSED_STREAM)
            self.forget(ended)

    def window_updated(self, stream: int) -> None:
        """See `http2_codec.FrameHandler`."""
        for sender in [self.streams.get(stream)] if stream else list(self.streams.values()):
            if sender is not None:
                sender.outbox.pump()

    @abstractmethod
    def goaway_received(self, last: int) -> None:
        """See `http2_codec.FrameHandler`."""

    @abstractmethod
    def connection_failed(self, text: str) -> None:
        """See `http2_codec.FrameHandler`."""

    def stream_failed(self, stream: int) -> None:
        """See `http2_codec.FrameHandler`."""
        ended = self.streams.pop(stream, None)
        if ended is None:
            self.abort_on_error()
        else:
            self.codec.reset(stream, ErrorCode.INTERNAL_ERROR)
            self._lost(ended, "internal error")
            self.forget(ended)

    def abort_on_error(self) -> None:
        """An unexpected exception was raised: end the connection."""
        self.codec.fail(ErrorCode.INTERNAL_ERROR, "internal error")

    def _lose_all(self, reason: str) -> None:
        """End all streams."""
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            self._lost(stream, reason)
