"""Chunked bodies of HTTP/1 messages, read strictly (RFC 9112 §7.1). Pure.

Chunks are decoded and encoded again, never passed through, so that the next parser cannot read them differently.
"""

import re

from activator.wire.http1_parser import valid_fields

MAX_CHUNK_LINE = 1024
"""Bytes of a chunk's first line, extensions included."""
MAX_TRAILERS = 16_384
"""Bytes of trailer fields."""

# An extension is discarded, but it must not have a control byte that another parser could take for the end of a line.
_size = re.compile(rb"([0-9A-Fa-f]{1,15}+)[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?").fullmatch


_SMALL = {text: size for size in range(1, 256) for text in (b"%x\r\n" % size, b"%X\r\n" % size)}
"""First lines of small chunks to their sizes: thousands of them in one read must not block the loop."""


class ChunkedReader:
    """Incremental decoder of a chunked body."""

    __slots__ = ("_buffer", "_left", "_stage", "done", "error", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.error = ""
        """Why the body is malformed; nothing more is read then."""
        self.rest = b""
        """Bytes after the end."""
        self.trailers = b""
        """Trailer field lines, each with its CRLF."""
        self._stage = 0  # 0: size line, 1: data, 2: CRLF after data, 3: trailers
        self._left = 0
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        """Decode bytes; returns the part of the body in them."""
        if self._stage == 1 and len(data) < self._left:  # the middle of a large chunk
            self._left -= len(data)
            return data
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while not self.done and not self.error:
            while self._stage == 0:
                line = data.find(b"\n", at, at + 4) + 1
                small = _SMALL.get(data[at:line]) if line else None
                if small is None or data[line + small : line + small + 2] != b"\r\n":
                    break
                pieces.append(data[line : line + small])
                at = line + small + 2
            if self._stage == 1:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if piece:
                    pieces.append(piece)
                if self._left:
                    break
                self._stage = 2
            before = at
            at = self._line(data, at, size)
            if at == before and self._stage != 1:
                break
        if not self.done and not self.error and at < size:
            self._buffer = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _line(self, data: bytes, at: int, size: int) -> int:
        """Read framing; returns where to continue, or `at` if more bytes are needed."""
        if self._stage == 2:
            if not b"\r\n".startswith(data[at : at + 2]):
                self.error = "a chunk is longer than its declared size"
            if size - at < 2:
                return at
            self._stage = 0
            return at + 2
        if self._stage == 3:
            return self._trailer(data, at, size)
        end = data.find(b"\n", at, at + MAX_CHUNK_LINE)
        if end < 0:
            if size - at >= MAX_CHUNK_LINE:
                self.error = "the first line of a chunk is too long"
            return at
        match = _size(data[at : end - 1]) if data[end - 1 : end] == b"\r" and end > at else None
        if match is None:
            self.error = "invalid chunk size"
            return at
        self._left = int(match[1], 16)
        self._stage = 1 if self._left else 3
        return end + 1

    def _trailer(self, data: bytes, at: int, size: int) -> int:
        if data[at : at + 2] == b"\r\n":
            end = at
        else:
            blank_line = data.find(b"\r\n\r\n", at, at + MAX_TRAILERS)
            if blank_line < 0:
                if size - at >= MAX_TRAILERS:
                    self.error = "the trailers are too long"
                elif re.search(rb"(?<!\r)\n|\r(?=[^\n])", data[at:]):
                    self.error = "invalid trailer fields"
                return at
            end = blank_line + 2
            self.trailers = data[at:end]
            if not valid_fields(self.trailers):
                self.error = "invalid trailer fields"
                return at
            self.trailers = allowed_trailers(self.trailers)
        self.done = True
        self.rest = data[end + 2 :]
        return end + 2


_forbidden_trailer = re.compile(
    rb"(?i:transfer-encoding|content-length|host|connection|trailer|te|upgrade|authorization|set-cookie|content-type"
    rb"|content-encoding|content-range|cache-control|expect|x-forwarded-[a-z]*|forwarded|cookie|keep-alive):"
).match


def allowed_trailers(trailers: bytes) -> bytes:
    """Remove fields that are allowed in a head only (RFC 9110 §6.5.1)."""
    return b"".join(line + b"\r\n" for line in trailers.split(b"\r\n") if line and not _forbidden_trailer(line))


def chunk(data: bytes) -> bytes:
    """Encode one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: bytes) -> bytes:
    """Encode the end of a chunked body."""
    return b"0\r\n%b\r\n" % trailers
