"""What is to be sent on an HTTP/2 stream, held back by the peer's windows; for both sides of an exchange."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import h2.exceptions

from activator.wire.http1_parser import split_fields
from activator.wire.http2_codec import DATA_SENT, Codec

FULL = 131_072
"""Bytes waiting for the peer's window at which the source is held back."""
FREE = 32_768
AT_ONCE = 65_536
"""Bytes handed to the library at which they are written without waiting for the end of the loop's turn: in one turn
megabytes may arrive from an instance, and only a write tells that the peer takes no more."""


class OutboxConnection(Protocol):
    """A connection."""

    codec: Codec
    write_paused: bool
    """The transport's own buffer is full."""
    unflushed: int
    """Bytes of bodies handed to the library since the last write."""

    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...


class Outbox:
    """The body and trailers of one direction of a stream."""

    __slots__ = ("_done", "_full", "_held_back", "_line", "_on_done", "_on_free", "_on_full", "_parts", "_size",
                 "_stream", "_trailers")  # fmt: skip

    def __init__(
        self,
        line: OutboxConnection,
        stream: int,
        full: Callable[[], None],
        free: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        """
        Args:
            full, free: called when the source is to stop and may go on.
            done: called once the end was handed to the library.
        """
        self._line = line
        self._stream = stream
        self._on_full, self._on_free, self._on_done = full, free, done
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._done = False
        self._held_back = False
        self._trailers = b""

    @property
    def size(self) -> int:
        """Bytes that wait for the peer's windows."""
        return self._size

    def add(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """More to send."""
        if data:
            self._parts.append(data)
            self._size += len(data)
        self._done = self._done or done
        self._trailers = trailers or self._trailers
        self.pump()

    def drop(self) -> None:
        """Nothing more will be sent."""
        self._parts.clear()
        self._size, self._done = 0, False

    def pump(self) -> None:
        """Hand to the library what the peer's windows allow."""
        codec = self._line.codec
        connection = codec.connection
        try:
            while self._parts and not self._line.write_paused:
                room = min(connection.local_flow_control_window(self._stream), connection.max_outbound_frame_size)
                if room <= 0:
                    break
                part = self._parts.popleft()
                if len(part) > room:
                    self._parts.appendleft(part[room:])
                    part = part[:room]
                self._size -= len(part)
                last = self._done and not self._parts and not self._trailers
                connection.send_data(self._stream, part, end_stream=last)
                codec.budget.earn(DATA_SENT)
                self._line.unflushed += len(part)
                if self._line.unflushed < AT_ONCE:
                    self._line.flush_soon()
                else:
                    self._line.flush()
                if last:
                    self._finish()
                    return
            if self._done and not self._parts:
                self._end(codec)
        except h2.exceptions.ProtocolError:
            self.drop()  # the stream was closed by the peer in the same batch of frames; its event follows
            return
        self._hold_back()

    def _end(self, codec: Codec) -> None:
        if self._trailers:
            fields = [(name.lower(), value) for name, value in split_fields(self._trailers)]
            codec.connection.send_headers(self._stream, fields, end_stream=True)
        else:
            codec.connection.send_data(self._stream, b"", end_stream=True)
        self._line.flush_soon()
        self._finish()

    def _finish(self) -> None:
        self.drop()
        self._hold_back()
        self._on_done()

    def _hold_back(self) -> None:
        if self._size > FULL and not self._held_back:
            self._held_back = True
            self._on_full()
        elif self._held_back and self._size < FREE:
            self._held_back = False
            self._on_free()
