"""Flow control of sending on an HTTP/2 stream; used for clients and for instances."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from activator.wire.http1_heads import MAX_CACHED_HEAD
from activator.wire.http1_parser import split_fields
from activator.wire.http2_codec import DATA_SENT, Codec
from activator.wire.http2_fields import Fields
from activator.wire.memo import Memo

HIGH_WATER = 131_072
"""Bytes waiting for the peer's window at which the source is paused."""
LOW_WATER = 32_768
"""Bytes at which the source is resumed."""
FLUSH_BYTES = 65_536
"""Bytes handed to the library at which they are written at once: megabytes may arrive from an instance in one iteration
of the loop, and only a write shows that the peer does not read."""


class OutboxConnection(Protocol):
    """The connection of the stream."""

    codec: Codec
    write_paused: bool
    """The transport's buffer is full."""
    unflushed: int
    """Bytes of bodies handed to the library since the last write."""
    sent_heads: Memo[bytes, Fields]

    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...


class Outbox:
    """The body and trailers to be sent on a stream."""

    __slots__ = ("_connection", "_done", "_on_done", "_on_free", "_on_full", "_parts", "_size", "_source_paused",
                 "_stream", "_trailers")  # fmt: skip

    def __init__(
        self,
        connection: OutboxConnection,
        stream: int,
        full: Callable[[], None],
        free: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        """
        Args:
            full, free: called to pause and to resume the source.
            done: called once the end of the stream was handed to the library.
        """
        self._connection = connection
        self._stream = stream
        self._on_full, self._on_free, self._on_done = full, free, done
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._done = False
        self._source_paused = False
        self._trailers = b""

    @property
    def size(self) -> int:
        """Bytes that wait for the peer's windows."""
        return self._size

    def add(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """Add bytes of the body; `done` with the last ones."""
        if data:
            self._parts.append(data)
            self._size += len(data)
        self._done = self._done or done
        self._trailers = trailers or self._trailers
        self.pump()

    def drop(self) -> None:
        """Discard everything."""
        self._parts.clear()
        self._size, self._done = 0, False

    def pump(self) -> None:
        """Hand to the library as much as the peer's windows allow."""
        codec = self._connection.codec
        while self._parts and not self._connection.write_paused:
            allowed = codec.sendable(self._stream)
            if not allowed:
                break
            part = self._parts.popleft()
            if len(part) > allowed > 0:
                self._parts.appendleft(part[allowed:])
                part = part[:allowed]
            self._size -= len(part)
            last = self._done and not self._parts and not self._trailers
            if allowed < 0 or not codec.send_data(self._stream, part, last):
                self.drop()  # the stream was closed by the peer in the same batch of frames; its event follows
                return
            codec.budget.earn(DATA_SENT)
            self._connection.unflushed += len(part)
            if self._connection.unflushed < FLUSH_BYTES:
                self._connection.flush_soon()
            else:
                self._connection.flush()
            if last:
                self._finish()
                return
        if self._done and not self._parts:
            self._end(codec)
            return
        self._apply_water_marks()

    def _end(self, codec: Codec) -> None:
        if self._trailers:
            fields = self._connection.sent_heads.get(self._trailers) or self._trailer_list()
            sent = codec.send_trailers(self._stream, fields)
        else:
            sent = codec.send_data(self._stream, b"", True)
        if not sent:
            self.drop()
            return
        self._connection.flush_soon()
        self._finish()

    def _trailer_list(self) -> Fields:
        fields = [(name.lower(), value) for name, value in split_fields(self._trailers)]
        if len(self._trailers) <= MAX_CACHED_HEAD:
            self._connection.sent_heads.keep(self._trailers, fields)
        return fields

    def _finish(self) -> None:
        self.drop()
        self._apply_water_marks()
        self._on_done()

    def _apply_water_marks(self) -> None:
        if self._size > HIGH_WATER and not self._source_paused:
            self._source_paused = True
            self._on_full()
        elif self._source_paused and self._size < LOW_WATER:
            self._source_paused = False
            self._on_free()
