"""Responses of HTTP/1.1 connections: their framing, and whether the connection is closed after them."""

from collections.abc import Callable

from activator.request.exchange import Exchange
from activator.routing.proxy_state import ProxyState
from activator.wire.chunked import chunk, last_chunk
from activator.wire.http1_heads import ResponseHead

_BY_LENGTH, _BY_CHUNKS, BY_CLOSE = range(3)


class Http1ResponseWriter(Exchange):
    """The part of a client's connection that writes responses."""

    __slots__ = ("_closing", "_framing", "_write")

    _write: Callable[[bytes], None]
    """`write` of the transport."""

    def __init__(self, proxy: ProxyState) -> None:
        super().__init__(proxy)
        self._framing = _BY_LENGTH
        self._closing = False
        """The connection is closed after the current response."""

    def write_response(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes) -> None:
        request = self.head
        wire = head.plain if request.keep_alive and request.version and not self._closing else self._plain_close(head)
        if request.is_head or not head.has_body:
            self._framing = _BY_LENGTH
            self._write(wire)
        elif head.length >= 0:
            self._framing = _BY_LENGTH
            self._write(wire + data if data else wire)
        elif request.version:
            self._framing = _BY_CHUNKS
            if data:
                wire += chunk(data)
            self._write(wire + last_chunk(trailers) if done else wire)
        else:
            self._framing = BY_CLOSE
            self._closing = True
            self._write(wire + data)

    def _plain_close(self, head: ResponseHead) -> bytes:
        """Return the head for HTTP/1.0, which has no chunks, or for the last response of a connection."""
        request = self.head
        if not request.version:
            if request.keep_alive and head.length >= 0 and not self._closing:
                return head.plain[:-2] + b"Connection: keep-alive\r\n\r\n"
            self._closing = True
            if head.length < 0:
                return b"HTTP/1.1 %d %b\r\n%bConnection: close\r\n\r\n" % (head.status, head.reason, head.block)
        self._closing = True
        return head.plain[:-2] + b"Connection: close\r\n\r\n"

    def write_body(self, data: bytes, done: bool, trailers: bytes) -> None:
        if self._framing == _BY_CHUNKS:
            if data:
                data = chunk(data)
            if done:
                data += last_chunk(trailers)
        if data:
            self._write(data)

    def write_tunnel(self, data: bytes) -> None:
        self._write(data)

    def write_truncated_end(self) -> None:
        if self._framing == _BY_CHUNKS:
            self._write(last_chunk(b""))
        else:
            self._closing = True
