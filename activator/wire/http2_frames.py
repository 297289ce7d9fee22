"""HTTP/2 frames of a peer: cut from its bytes, checked, and charged for when they change nothing. Pure.

The rules of RFC 9113 that concern a frame by itself are here (§4.1, §4.2, §6), those of streams in `h2_codec`. A header
block is put together to one HEADERS frame, padding and priority taken off; DATA frames of one stream that came together
become one. What has no effect (PRIORITY, unknown types) is dropped here.
"""

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from h2.errors import ErrorCodes

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384
"""Bytes of a frame's payload: what RFC 9113 §6.5.2 begins with; we do not announce more."""
MAX_BLOCK = 131_072
"""Bytes of a header block before decompression."""
MAX_MERGED_FRAMES = 8192
"""DATA frames that are put together at most, so that the loop gets a turn."""
SMALL_PAYLOAD = 64
"""Bytes of a padded DATA frame's payload below which it is charged for: padded frames are not put together."""

SETTINGS_BYTES_PER_CHARGE = 48
"""Bytes of a SETTINGS frame that cost a charge: eight settings."""

BURST = 512
"""Charges that a connection may have at once; see `Budget`."""
PER_SECOND = 128
"""Charges that it gets back in a second."""

_head = Struct(">HBBBL")


class HTTP2ConnectionError(Exception):
    """What came ends the connection (RFC 9113 §5.4.1)."""

    def __init__(self, code: ErrorCodes, text: str) -> None:
        self.code = code
        super().__init__(text)


class HTTP2StreamError(Exception):
    """What came ends one stream (RFC 9113 §5.4.2)."""

    def __init__(self, stream: int, code: ErrorCodes, text: str) -> None:
        self.stream = stream
        self.code = code
        super().__init__(text)


class Budget:
    """What a peer may send that costs us and changes nothing, in charges of about half a millisecond at most.

    One account for all of it, as nghttp2's glitches and nginx's flood detection have: empty DATA, WINDOW_UPDATE,
    PRIORITY, SETTINGS, PING, RST_STREAM, unknown frames, what is sent on closed streams, malformed requests, requests
    for hosts that there are not, and header lists that decompress to much more than was sent. A peer gets charges back
    with time, and with work that was of use: bodies sent to it, answers of instances.
    """

    __slots__ = ("_at", "_clock", "left")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: seconds, never goes back."""
        self.left = float(BURST)
        self._clock = clock
        self._at = clock()

    def spend(self, charges: int) -> None:
        """Raises: HTTP2ConnectionError: there are not as many left."""
        self.left -= charges
        if self.left < 0:
            now = self._clock()
            self.left = min(BURST, self.left + (now - self._at) * PER_SECOND)
            self._at = now
            if self.left < 0:
                raise HTTP2ConnectionError(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that change nothing")

    def earn(self, charges: int) -> None:
        """Give charges back, up to `BURST`."""
        self.left = min(BURST, self.left + charges)


class Frame(NamedTuple):
    """One frame, or a header block put together to one."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def wire(self) -> bytes:
        """The frame as bytes."""
        size = len(self.payload)
        return _head.pack(size >> 8, size & 0xFF, self.kind, self.flags, self.stream) + self.payload


class FrameReader:
    """Cuts frames. After a `HTTP2ConnectionError` it must not be used any more."""

    def __init__(self, budget: Budget, *, preface: bool) -> None:
        """Args: preface: the peer is a client, whose connection begins with it."""
        self._budget = budget
        self._preface = PREFACE if preface else b""
        self._buffer = bytearray()
        self._at = 0
        self._settled = False
        self._block: list[bytes] = []
        self._block_size = 0
        self._block_of = Frame(HEADERS, 0, 0, b"")
        self._ready: deque[Frame] = deque()

    @property
    def buffered(self) -> int:
        """Bytes that were not cut yet."""
        return len(self._buffer) - self._at

    @property
    def mid_block(self) -> bool:
        """Whether the beginning is not whole: the preface and the first SETTINGS, or a header block."""
        return bool(self._block) or not self._settled

    def feed(self, data: bytes) -> None:
        """Take bytes in."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next(self) -> Frame | None:
        """The next frame; None when more bytes are needed.

        Raises:
            HTTP2ConnectionError, HTTP2StreamError: reading may go on after the latter.
        """
        if self._ready:
            return self._ready.popleft()
        if self._preface and not self._read_preface():
            return None
        if self._settled and not self._block:
            self._merge_data_frames()
        return self._ready.popleft() if self._ready else self._cut()

    def _merge_data_frames(self) -> None:
        """Take DATA frames from the front of what came, and make one of those of each stream."""
        buffer, at, end = self._buffer, self._at, len(self._buffer)
        bodies: dict[int, bytearray] = {}
        ended: set[int] = set()
        for _ in range(MAX_MERGED_FRAMES):
            if end - at < 9:
                break
            high, low, kind, flags, stream = _head.unpack_from(buffer, at)
            size = high << 8 | low
            # What is to be charged for or refused is left to `_cut`; so is what follows the end of a stream.
            if kind != DATA or flags & PADDED or not size or size > MAX_FRAME or end - at - 9 < size:
                break
            if stream in ended or not stream & 0x7FFF_FFFF:
                break
            body = bodies.get(stream)
            if body is None:
                bodies[stream] = buffer[at + 9 : at + 9 + size]
            else:
                body += buffer[at + 9 : at + 9 + size]
            if flags & END_STREAM:
                ended.add(stream)
            at += 9 + size
        self._at = at
        for stream, body in bodies.items():
            flags = END_STREAM if stream in ended else 0
            self._ready.append(Frame(DATA, flags, stream & 0x7FFF_FFFF, bytes(body)))

    def _read_preface(self) -> bool:
        size = min(len(self._preface), self.buffered)
        if self._buffer[self._at : self._at + size] != self._preface[:size]:
            raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "the connection does not begin with HTTP/2's preface")
        self._at += size
        self._preface = self._preface[size:]
        return not self._preface

    def _cut(self) -> Frame | None:
        """One frame that has an effect."""
        buffer = self._buffer
        while True:
            at = self._at
            if len(buffer) - at < 9:
                return None
            high, low, kind, flags, stream = _head.unpack_from(buffer, at)
            size = high << 8 | low
            if size > MAX_FRAME:
                raise HTTP2ConnectionError(ErrorCodes.FRAME_SIZE_ERROR, "a frame is longer than allowed")
            if len(buffer) - at - 9 < size:
                return None
            self._at = at + 9 + size
            stream &= 0x7FFF_FFFF
            if not self._settled:
                if kind != SETTINGS or flags & ACK:
                    raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "the first frame must be SETTINGS")
                self._settled = True
            payload = bytes(buffer[at + 9 : self._at])
            if self._block:
                frame = self._continue(kind, flags, stream, payload)
            elif kind == DATA:
                frame = self._data(flags, stream, payload)
            elif kind == HEADERS:
                frame = self._headers(flags, stream, payload)
            else:
                frame = self._other(kind, flags, stream, payload)
            if frame is not None:
                return frame

    def _data(self, flags: int, stream: int, payload: bytes) -> Frame:
        if not stream:
            raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "DATA without a stream")
        if flags & PADDED:
            # The library takes the padding off: it counts for flow control.
            if len(_unpadded(payload)) < SMALL_PAYLOAD:
                self._budget.spend(1)
        elif not payload and not flags & END_STREAM:
            self._budget.spend(1)
        return Frame(DATA, flags & (END_STREAM | PADDED), stream, payload)

    def _headers(self, flags: int, stream: int, payload: bytes) -> Frame | None:
        if not stream:
            raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "HEADERS without a stream")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise HTTP2ConnectionError(ErrorCodes.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            payload = payload[5:]
        frame = Frame(HEADERS, flags & END_STREAM | END_HEADERS, stream, payload)
        if flags & END_HEADERS:
            return frame
        self._block, self._block_size, self._block_of = [payload], len(payload), frame
        return None

    def _continue(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        if kind != CONTINUATION or stream != self._block_of.stream:
            raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "a header block is interrupted")
        if not flags & END_HEADERS:
            self._budget.spend(1)
        self._block.append(payload)
        self._block_size += len(payload)
        if self._block_size > MAX_BLOCK:
            raise HTTP2ConnectionError(ErrorCodes.ENHANCE_YOUR_CALM, f"a header block is longer than {MAX_BLOCK} bytes")
        if not flags & END_HEADERS:
            return None
        frame = self._block_of._replace(payload=b"".join(self._block))
        self._block = []
        return frame

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        rule = _RULES.get(kind)
        if kind == SETTINGS:
            self._budget.spend(1 + len(payload) // SETTINGS_BYTES_PER_CHARGE)
        else:
            self._budget.spend(1)
        if rule is None:
            if kind in (CONTINUATION, PUSH_PROMISE):
                raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, f"{_NAMES[kind]} where there must be none")
            return None  # §5.5: unknown types are ignored
        if rule.stream is not None and rule.stream != bool(stream):
            where = "on a stream" if stream else "without a stream"
            raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, f"{_NAMES[kind]} {where}")
        if not rule.fits(len(payload)) or (kind == SETTINGS and flags & ACK and payload):
            text = f"{_NAMES[kind]} of a length that cannot be"
            if kind == PRIORITY:
                raise HTTP2StreamError(stream, ErrorCodes.FRAME_SIZE_ERROR, text)
            raise HTTP2ConnectionError(ErrorCodes.FRAME_SIZE_ERROR, text)
        if kind == PRIORITY:
            return None  # RFC 9113 §5.3.2: deprecated
        if kind == WINDOW_UPDATE and not int.from_bytes(payload) & 0x7FFF_FFFF:
            if stream:
                raise HTTP2StreamError(stream, ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        return Frame(kind, flags & ACK if kind in (SETTINGS, PING) else 0, stream, payload)


class _Rule(NamedTuple):
    """Where a kind of frame may come, and how long its payload is (RFC 9113 §6)."""

    stream: bool | None
    """True: on a stream; False: on none; None: on either."""
    fits: Callable[[int], bool]


_NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
          "CONTINUATION")  # fmt: skip
_RULES = {
    PRIORITY: _Rule(True, (5).__eq__),
    RST_STREAM: _Rule(True, (4).__eq__),
    SETTINGS: _Rule(False, lambda size: size % 6 == 0),
    PING: _Rule(False, (8).__eq__),
    GOAWAY: _Rule(False, (8).__le__),
    WINDOW_UPDATE: _Rule(None, (4).__eq__),
}


def _unpadded(payload: bytes) -> bytes:
    """The payload of a padded frame without its padding."""
    if not payload or payload[0] >= len(payload):
        raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
