"""What HTTP/2 codecs have in common: frames are read, validated and charged for before a library gets them.

Libraries treat many malformed messages as connection errors, where RFC 9113 §5.4.2 has stream errors. So `http2_frames`
parses frames and `http2_fields` validates header lists; a library gets valid frames only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import structlog

from activator.wire import http2_fields, http2_frames
from activator.wire.http1_heads import MAX_CACHED_HEAD
from activator.wire.http2_codec import CodecOptions, FrameHandler
from activator.wire.http2_errors import ErrorCode, HTTP2ConnectionError, HTTP2StreamError
from activator.wire.http2_fields import Fields, HeaderList
from activator.wire.http2_frames import Budget, Frame, FrameReader
from activator.wire.memo import Memo

log = structlog.get_logger()

UNCHARGED_HEADER_BYTES, HEADER_BYTES_PER_CHARGE = 16_384, 8192
"""Bytes of a header list without a charge, and bytes beyond for each charge."""
HEADER_FIELDS_PER_CHARGE = 32
"""Fields of a header list for each charge."""
MAX_INT31 = 2**31 - 1


class CodecBase(ABC):
    """See the module; the public methods are those of `http2_codec.Codec`."""

    def __init__(self, handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> None:
        """Args: clock: seconds, monotonic."""
        self._handler = handler
        self._client = options.client
        self._clock = clock
        self.budget = Budget(clock)
        self._reader = FrameReader(self.budget, preface=not options.client)
        self._own_frames = b""
        self._stream = 0
        """The stream of the frame that is being handled."""
        self._unfinished: set[int] = set()
        """Streams whose head arrived and whose end did not: another HEADERS has their trailers."""
        self._awaiting_response: set[int] = set()
        """Streams that we opened and that have no response head yet."""
        self._working = False
        self._lists: Memo[Fields, HeaderList] = Memo()
        self.frames = 0
        """Frames that reached the library."""
        self.ended = False

    # --- of the library

    @abstractmethod
    def _step(self) -> bool:
        """Handle one frame or event; returns False if more bytes are needed. Raises: the errors of HTTP/2."""

    @abstractmethod
    def _idle(self, stream: int) -> bool:
        """Whether a stream was never opened."""

    @abstractmethod
    def _last_inbound(self) -> int:
        """Return the highest stream that the peer opened."""

    @abstractmethod
    def _library_output(self) -> bytes:
        """Return the bytes that the library has produced."""

    @abstractmethod
    def reset(self, stream: int, code: int) -> None:
        """See `http2_codec.Codec`."""

    # --- receiving

    @property
    def mid_block(self) -> bool:
        """See `http2_codec.Codec`."""
        return self._reader.mid_block

    def feed(self, data: bytes) -> None:
        """See `http2_codec.Codec`."""
        if not self.ended:
            self._reader.feed(data)

    def work(self, until: float) -> bool:
        """See `http2_codec.Codec`."""
        self._working = True
        try:
            return self._work(until)
        finally:
            self._working = False

    def _work(self, until: float) -> bool:
        while not self.ended:
            self._stream = 0
            try:
                if not self._step():
                    return False
            except HTTP2StreamError as fault:
                self._refuse(fault)
            except HTTP2ConnectionError as fault:
                self.fail(fault.code, str(fault))
            except Exception as error:
                log.exception("frame handling failed", stream=self._stream, error=repr(error))
                self._handler.stream_failed(self._stream)
            if self._clock() >= until:
                return not self.ended
        return False

    def _take_own(self, frame: Frame) -> bool:
        """Handle a frame that no library needs to see; returns whether it was one."""
        if frame.kind == http2_frames.PING:
            if not frame.flags & http2_frames.ACK:
                self._own_frames += Frame(frame.kind, http2_frames.ACK, 0, frame.payload).wire()
            return True
        if frame.kind == http2_frames.GOAWAY:
            # A library would stop receiving and sending, but open streams continue (§6.8).
            self._handler.goaway_received(int.from_bytes(frame.payload[:4]) & MAX_INT31)
            return True
        return False

    def _list(self, fields: Fields) -> HeaderList:
        """Return a received header list; charge for one that is long in bytes or fields."""
        key = tuple(fields)
        same = self._lists.get(key)
        if same is not None:
            return same
        size = sum([len(name) + len(value) for name, value in fields]) + 32 * len(fields)
        charges = (
            max(0, size - UNCHARGED_HEADER_BYTES) // HEADER_BYTES_PER_CHARGE + len(fields) // HEADER_FIELDS_PER_CHARGE
        )
        if charges:
            self.budget.spend(charges)
        headers = HeaderList(key, size)
        if size <= MAX_CACHED_HEAD and not charges:
            self._lists.keep(key, headers)
        return headers

    def _head_received(self, stream: int, headers: HeaderList, done: bool) -> None:
        """Hand on a request, or a final response."""
        self._awaiting_response.discard(stream)
        if self._client:
            fault = "a 1xx response ends the stream" if is_interim(headers.fields) else ""
        elif headers.valid_if_done is done:
            fault = ""
        else:
            fault = http2_fields.request_fault(headers.fields, done)
            headers.valid_if_done = None if fault else done
        if fault:
            raise HTTP2StreamError(stream, ErrorCode.PROTOCOL_ERROR, fault)
        if not done:
            self._unfinished.add(stream)
        self._handler.headers_received(stream, headers, done)

    def _trailers_received(self, stream: int, headers: HeaderList, fault: str) -> None:
        lines = headers.parsed
        if not isinstance(lines, bytes):
            lines = headers.parsed = http2_fields.trailers(headers.fields)
        self._unfinished.discard(stream)
        if fault or lines is None:
            raise HTTP2StreamError(stream, ErrorCode.PROTOCOL_ERROR, fault or "malformed trailers")
        self._handler.trailers_received(stream, lines)

    def _refuse(self, fault: HTTP2StreamError) -> None:
        if self._idle(fault.stream):
            self.fail(fault.code, str(fault))
            return
        try:
            self.budget.spend(1)
        except HTTP2ConnectionError as exhausted:
            self.fail(exhausted.code, str(exhausted))
            return
        self.reset(fault.stream, fault.code)
        self._handler.stream_reset(fault.stream, fault.code, str(fault))

    def _forget(self, stream: int) -> None:
        self._unfinished.discard(stream)
        self._awaiting_response.discard(stream)

    def fail(self, code: int, text: str) -> None:
        """See `http2_codec.Codec`."""
        if not self.ended:
            self.send_goaway(code)
            self.ended = True
            self._handler.connection_failed(text)

    # --- sending

    def send_goaway(self, code: int) -> None:
        """See `http2_codec.Codec`."""
        payload = self._last_inbound().to_bytes(4, "big") + int(code).to_bytes(4, "big")
        self._own_frames += Frame(http2_frames.GOAWAY, 0, 0, payload).wire()

    def output(self) -> bytes:
        """See `http2_codec.Codec`."""
        data, own_frames, self._own_frames = self._library_output(), self._own_frames, b""
        return data + own_frames if own_frames else data


def is_interim(fields: Fields) -> bool:
    """Whether a response is a 1xx."""
    return bool(fields) and fields[0][0] == b":status" and fields[0][1][:1] == b"1"
