"""Requests of HTTP/1.1 connections: where each begins and ends, and what of it is forwarded."""

import asyncio
from abc import abstractmethod

from activator.frontend.http1_response import Http1ResponseWriter
from activator.frontend.limits import LINGER_BYTES
from activator.request import local_responses
from activator.request.states import IDLE, QUEUED, SENT
from activator.routing.proxy_state import ProxyState
from activator.wire.chunked import ChunkedReader
from activator.wire.forwarding import Peer
from activator.wire.http1_heads import (
    CHUNKED,
    MAX_CACHED_HEAD,
    MAX_HEAD,
    HeadError,
    RequestHead,
    upstream_head,
)
from activator.wire.http1_parser import read_plain_request, read_request
from activator.wire.http2_frames import PREFACE

READ_HEAD, READ_LENGTH, READ_CHUNKS, BUSY, TUNNELLED, LINGER = range(6)
"""What is read next: a head, a body of either kind, nothing before the response, a tunnel, what is discarded."""
READ_WHOLE = (BUSY, TUNNELLED)
"""The request has been read to its end."""


class Http1RequestReader(Http1ResponseWriter):
    """The part of a client's connection that reads requests."""

    __slots__ = (
        "_buffer", "_chunks", "_expects_plain", "_forwarding_cache", "_last_activity", "_last_head", "_last_outgoing",
        "_mode", "_paused", "_peer", "_remaining", "_transport",
    )  # fmt: skip

    _transport: asyncio.Transport
    _peer: Peer

    def __init__(self, proxy: ProxyState) -> None:
        super().__init__(proxy)
        self._mode = READ_HEAD
        self._buffer = b""
        self._last_head: RequestHead | None = None
        self._last_outgoing = b""
        self._remaining = 0
        self._chunks = ChunkedReader()
        self._paused = False
        self._last_activity = 0.0
        self._forwarding_cache = (b"\n", b"")
        self._expects_plain = True
        """Whether to try `read_plain_request`; False once it could not read a head of this connection."""

    @abstractmethod
    def _upgrade_to_http2(self, data: bytes) -> None:
        """Continue as an HTTP/2 connection, which begins with this data."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for the first byte of a request."""
        return self._mode == READ_HEAD and not self._buffer and not self._closing

    def skip_body(self) -> None:
        """Expect no body of the current request: the client will not send it."""
        self._mode = BUSY

    def discard_input(self) -> None:
        """Read no more requests; the peer closes the connection."""
        self._mode, self._remaining, self._buffer = LINGER, LINGER_BYTES, b""
        self._closing = True
        self._last_activity = self.proxy.time()
        self.resume_body()

    def clear_cached_heads(self) -> None:
        """Called when the rules for forwarding fields change."""
        self._last_head, self._forwarding_cache = None, (b"\n", b"")

    # --- heads and bodies

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
        self._mode = BUSY
        self.begin()

    def _forwarding(self, head: RequestHead) -> bytes:
        """Return the forwarding fields; cached for a client that sends none of its own."""
        if head.forwarded is not None:
            return self.proxy.proxies.fields(self._peer, head)
        if self._forwarding_cache[0] != head.authority:
            self._forwarding_cache = (head.authority, self.proxy.proxies.fields(self._peer, head))
        return self._forwarding_cache[1]

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
            self._mode = BUSY if chunks.done else READ_CHUNKS
            self._buffer = chunks.rest
        elif len(rest) >= length:
            self.body_done, self._mode = True, BUSY
            body, self._buffer = (rest[:length], rest[length:]) if length else (b"", rest)
        else:
            self.body_done, self._mode = False, READ_LENGTH
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
            self._mode = BUSY
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
            self._mode, self._buffer = BUSY, chunks.rest
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
