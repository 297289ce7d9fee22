"""HTTP/2 frames of a peer: parsed, validated, and charged for if they change nothing. Pure.

Rules of RFC 9113 for a single frame are here (§4.1, §4.2, §6), those for streams in `http2_codec`. The frames of a
header block become one HEADERS frame without padding and priority; adjacent DATA frames of one stream become one.
Frames without effect (PRIORITY, unknown types) are dropped.
"""

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from activator.wire.http2_errors import ErrorCode, HTTP2ConnectionError, HTTP2StreamError

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384
"""Bytes of a frame's payload: the initial value of RFC 9113 §6.5.2, which we do not raise."""
MAX_BLOCK = 131_072
"""Bytes of a header block before decompression."""
MAX_MERGED_FRAMES = 8192
"""Limit of DATA frames that are merged at once, so that the loop is not blocked."""
SMALL_PAYLOAD = 64
"""Payload of a padded DATA frame below which it is charged for: padded frames are not merged."""

SETTINGS_BYTES_PER_CHARGE = 48
"""Bytes of a SETTINGS frame for each charge: eight settings."""

BURST = 512
"""Charges that a connection may spend at once; see `Budget`."""
PER_SECOND = 128
"""Charges that it earns in a second."""

_head = Struct(">HBBBL")


class Budget:
    """Limits frames that cost us time and change nothing, in charges of about half a millisecond at most.

    One budget for all kinds, like the glitches of nghttp2 and the flood detection of nginx: empty DATA, WINDOW_UPDATE,
    PRIORITY, SETTINGS, PING, RST_STREAM, unknown frames, frames on closed streams, malformed requests, requests for
    unknown hosts, and header lists that decompress to much more than was sent. A peer earns charges with time and
    with useful work: bodies sent to it, responses of instances.
    """

    __slots__ = ("_at", "_clock", "left")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: seconds, monotonic."""
        self.left = float(BURST)
        self._clock = clock
        self._at = clock()

    def spend(self, charges: int) -> None:
        """Raises: HTTP2ConnectionError: not enough charges are left."""
        self.left -= charges
        if self.left < 0:
            now = self._clock()
            self.left = min(BURST, self.left + (now - self._at) * PER_SECOND)
            self._at = now
            if self.left < 0:
                raise HTTP2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that have no effect")

    def earn(self, charges: int) -> None:
        """Add charges, up to `BURST`."""
        self.left = min(BURST, self.left + charges)


class Frame(NamedTuple):
    """One frame, or the frames of a header block as one."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def wire(self) -> bytes:
        """Return the frame as bytes."""
        size = len(self.payload)
        return _head.pack(size >> 8, size & 0xFF, self.kind, self.flags, self.stream) + self.payload


class FrameReader:
    """Parses frames. After an `HTTP2ConnectionError` it must not be used any more."""

    def __init__(self, budget: Budget, *, preface: bool) -> None:
        """Args: preface: the peer is a client, whose connection starts with it."""
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
        """Bytes that were not parsed yet."""
        return len(self._buffer) - self._at

    @property
    def mid_block(self) -> bool:
        """Whether the preface, the first SETTINGS or a header block is incomplete."""
        return bool(self._block) or not self._settled

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next frame; None if more bytes are needed.

        Raises:
            HTTP2ConnectionError, HTTP2StreamError: reading may continue after the latter.
        """
        if self._ready:
            return self._ready.popleft()
        if self._preface and not self._read_preface():
            return None
        if self._settled and not self._block and self._buffer[self._at + 3 : self._at + 4] == b"\0":  # DATA
            self._merge_data_frames()
        return self._ready.popleft() if self._ready else self._parse()

    def _merge_data_frames(self) -> None:
        """Merge the DATA frames of each stream at the front of the buffer."""
        buffer, at, end = self._buffer, self._at, len(self._buffer)
        bodies: dict[int, bytearray] = {}
        ended: set[int] = set()
        for _ in range(MAX_MERGED_FRAMES):
            if end - at < 9:
                break
            high, low, kind, flags, stream = _head.unpack_from(buffer, at)
            size = high << 8 | low
            # Frames to be charged for or rejected are left to `_parse`, as are those after the end of a stream.
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
            raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "the connection does not start with HTTP/2's preface")
        self._at += size
        self._preface = self._preface[size:]
        return not self._preface

    def _parse(self) -> Frame | None:
        """Return one frame that has an effect."""
        buffer = self._buffer
        while True:
            at = self._at
            if len(buffer) - at < 9:
                return None
            high, low, kind, flags, stream = _head.unpack_from(buffer, at)
            size = high << 8 | low
            if size > MAX_FRAME:
                raise HTTP2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "a frame is longer than allowed")
            if len(buffer) - at - 9 < size:
                return None
            self._at = at + 9 + size
            stream &= 0x7FFF_FFFF
            if not self._settled:
                if kind != SETTINGS or flags & ACK:
                    raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
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
            raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "DATA without a stream")
        if flags & PADDED:
            # The library removes the padding, which counts for flow control.
            if len(_unpadded(payload)) < SMALL_PAYLOAD:
                self._budget.spend(1)
        elif not payload and not flags & END_STREAM:
            self._budget.spend(1)
        return Frame(DATA, flags & (END_STREAM | PADDED), stream, payload)

    def _headers(self, flags: int, stream: int, payload: bytes) -> Frame | None:
        if not stream:
            raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "HEADERS without a stream")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise HTTP2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            payload = payload[5:]
        frame = Frame(HEADERS, flags & END_STREAM | END_HEADERS, stream, payload)
        if flags & END_HEADERS:
            return frame
        self._block, self._block_size, self._block_of = [payload], len(payload), frame
        return None

    def _continue(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        if kind != CONTINUATION or stream != self._block_of.stream:
            raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "another frame interrupts a header block")
        if not flags & END_HEADERS:
            self._budget.spend(1)
        self._block.append(payload)
        self._block_size += len(payload)
        if self._block_size > MAX_BLOCK:
            raise HTTP2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, f"a header block is longer than {MAX_BLOCK} bytes")
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
                raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"unexpected {_NAMES[kind]}")
            return None  # §5.5: unknown types are ignored
        if rule.stream is not None and rule.stream != bool(stream):
            where = "on a stream" if stream else "without a stream"
            raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"{_NAMES[kind]} {where}")
        if not rule.fits(len(payload)) or (kind == SETTINGS and flags & ACK and payload):
            text = f"{_NAMES[kind]} of invalid length"
            if kind == PRIORITY:
                raise HTTP2StreamError(stream, ErrorCode.FRAME_SIZE_ERROR, text)
            raise HTTP2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, text)
        if kind == PRIORITY:
            return None  # RFC 9113 §5.3.2: deprecated
        if kind == WINDOW_UPDATE:
            increment = int.from_bytes(payload) & 0x7FFF_FFFF
            if not increment:
                if stream:
                    raise HTTP2StreamError(stream, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE with increment 0")
                raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE with increment 0")
            payload = increment.to_bytes(4, "big")  # §6.9: the reserved bit is ignored
        return Frame(kind, flags & ACK if kind in (SETTINGS, PING) else 0, stream, payload)


class _Rule(NamedTuple):
    """Whether a type of frame belongs to a stream, and which payload lengths it allows (RFC 9113 §6)."""

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
    """Return the payload of a padded frame without its padding."""
    if not payload or payload[0] >= len(payload):
        raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
