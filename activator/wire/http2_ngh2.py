"""An HTTP/2 codec on libnghttp2, through its Python binding ngh2.

The library gets no frame whose sender may not send it in the stream's state: where RFC 9113 §5.1 has a stream error, it
would end the connection. It validates header lists itself and resets the stream of a malformed one without an event, so
whenever a frame has no event its output is fetched at once, and the closed stream is found there. PING, GOAWAY and the
acknowledgement of SETTINGS never reach it. README.md of the activator has the results of a review of the binding.
"""

from collections import deque
from collections.abc import Callable

import ngh2
from ngh2 import events

from activator.wire import http2_frames
from activator.wire.http2_base import MAX_INT31, CodecBase
from activator.wire.http2_codec import (
    MAX_DECODED_HEADER_LIST,
    UNREADABLE_HEAD,
    WRONG_LENGTH,
    CodecOptions,
    FrameHandler,
    RequestNotSent,
)
from activator.wire.http2_errors import ErrorCode, HTTP2ConnectionError, HTTP2StreamError, Setting
from activator.wire.http2_fields import Fields
from activator.wire.http2_frames import PREFACE, Frame

UNLIMITED = (2**40, 2**40)
"""`http2_frames` charges for floods, before the library sees them."""
MAX_RESETS, MAX_GAPS = 1024, 64
"""Streams that were reset, and ranges of streams that the peer left out, that are remembered."""
MALFORMED_BYTES_PER_CHARGE = 256
"""Bytes of a header block for each charge, if the library does not accept it, as its decoded size is then unknown."""
MAX_FRAME = 2**24 - 1
"""Bytes of a frame for the library: header blocks and adjacent DATA frames reach it as one frame."""

_LIMITS = ngh2.Configuration(
    auto_window_update=False,
    max_send_header_block_length=2**24,
    max_outbound_ack=2**20,
    max_settings=http2_frames.MAX_FRAME,
    stream_reset_rate_limit=UNLIMITED,
    glitch_rate_limit=UNLIMITED,
    max_inbound_header_list_size=MAX_DECODED_HEADER_LIST,
    max_inbound_header_count=MAX_DECODED_HEADER_LIST // 32,
)
_ACK = Frame(http2_frames.SETTINGS, http2_frames.ACK, 0, b"").wire()
_EMPTY_SETTINGS = Frame(http2_frames.SETTINGS, 0, 0, b"").wire()


class Ngh2Codec(CodecBase):
    """See the module."""

    def __init__(self, handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> None:
        """Args: clock: seconds, monotonic."""
        super().__init__(handler, clock, options)
        self._connection = ngh2.Connection(ngh2.Role.CLIENT if options.client else ngh2.Role.SERVER, _LIMITS)
        self._events: deque[events.Event] = deque()
        self._out = b""
        self._goaway_fetched = False
        """GOAWAY of the library is in the output."""
        self._last_kind = http2_frames.SETTINGS
        """Kind of the last frame that the library got."""
        self._broken = ""
        """Why the library cannot be used any more."""
        self._highest = 0
        """The highest stream that was opened."""
        self._resets: dict[int, None] = {}
        """Streams that either side reset, oldest first."""
        self._gaps: deque[range] = deque(maxlen=MAX_GAPS)
        """Streams that were never opened, below one that was."""
        self._max_streams = MAX_INT31
        self._start(options)

    def _start(self, options: CodecOptions) -> None:
        """Make the library begin as if both sides had acknowledged its settings: it must not end the connection for
        an excess stream, or for bytes that were sent before the acknowledgement arrived. Ours are written here."""
        connection, settings = self._connection, {int(key): value for key, value in options.settings.items()}
        settings[Setting.MAX_CONCURRENT_STREAMS] = MAX_INT31
        settings[Setting.MAX_FRAME_SIZE] = MAX_FRAME
        settings.pop(Setting.MAX_HEADER_LIST_SIZE, None)
        connection.initiate_connection(settings)
        connection.receive_data((b"" if self._client else PREFACE) + _EMPTY_SETTINGS + _ACK)
        connection.data_to_send()
        connection.events()
        payload = b"".join(
            int(key).to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in options.settings.items()
        )
        self._out = (PREFACE if self._client else b"") + Frame(http2_frames.SETTINGS, 0, 0, payload).wire()
        connection.set_local_window_size(options.window)

    @property
    def pending(self) -> bool:
        """See `http2_codec.Codec`."""
        return not self._working and bool(self._events or self._broken)

    @property
    def max_streams(self) -> int:
        """See `http2_codec.Codec`."""
        return self._max_streams

    # --- receiving

    def _step(self) -> bool:
        if self._broken:
            raise HTTP2ConnectionError(ErrorCode.INTERNAL_ERROR, self._broken)
        if self._events:
            self._notify(self._events.popleft())
            return True
        frame = self._reader.next()
        if frame is None:
            return False
        self._stream = frame.stream
        if frame.kind == http2_frames.HEADERS:
            self._headers(frame)
        elif not self._take_own(frame):
            self._take(frame)
        return True

    def _take(self, frame: Frame) -> None:
        kind, stream = frame.kind, frame.stream
        if kind == http2_frames.SETTINGS:
            if frame.flags & http2_frames.ACK:
                return
        elif kind == http2_frames.RST_STREAM:
            if self._is_open(stream):
                self.budget.spend(1)
            elif not self._idle(stream):
                return
        elif kind == http2_frames.DATA and stream not in self._unfinished:
            self._unexpected_data(frame)
            return
        elif kind == http2_frames.WINDOW_UPDATE and stream:
            window = self._window(stream)
            if window is not None and window + int.from_bytes(frame.payload) > MAX_INT31:
                raise HTTP2StreamError(stream, ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
        self._receive(frame)

    def _unexpected_data(self, frame: Frame) -> None:
        """DATA on a stream that is idle, half-closed or closed (§5.1)."""
        stream = frame.stream
        if self._idle(stream):
            raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        if frame.payload:  # the library does not see it, and it counts for the connection's window
            self._own_frames += Frame(http2_frames.WINDOW_UPDATE, 0, 0, len(frame.payload).to_bytes(4, "big")).wire()
        if stream in self._awaiting_response:
            raise HTTP2StreamError(stream, ErrorCode.PROTOCOL_ERROR, "DATA before HEADERS")
        self.budget.spend(1)
        self._closed(stream, "DATA")

    def _closed(self, stream: int, name: str) -> None:
        """Refuse a frame on a half-closed or closed stream."""
        if stream in self._resets or self._is_open(stream):
            raise HTTP2StreamError(stream, ErrorCode.STREAM_CLOSED, f"{name} on a closed stream")
        raise HTTP2ConnectionError(ErrorCode.STREAM_CLOSED, f"{name} on a closed stream")

    def _headers(self, frame: Frame) -> None:
        stream = frame.stream
        if self._client or stream in self._unfinished:
            if stream not in self._unfinished and stream not in self._awaiting_response and not self._idle(stream):
                self.budget.spend(1)
            self._receive(frame)
        elif stream % 2 and stream > self._highest:
            if stream > self._highest + 2:
                self._gaps.append(range(self._highest + 1, stream))
            self._highest = stream
            self._receive(frame)
        else:
            self._late_headers(frame)

    def _late_headers(self, frame: Frame) -> None:
        """HEADERS of a client on a stream that it has ended, or never opened in its turn (§5.1, §5.1.1)."""
        stream = frame.stream
        self.budget.spend(1)
        if not stream % 2 or any(stream in gap for gap in self._gaps):
            raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that cannot be opened")
        if self._is_open(stream):
            # The library must decompress the block, and does so without looking at it if the stream is closed.
            self._reset(stream, ErrorCode.STREAM_CLOSED)
            self._fetch()
            self._receive(frame)
            self._forget(stream)
            self._handler.stream_reset(stream, ErrorCode.STREAM_CLOSED, "HEADERS on a half-closed stream")
            self.budget.spend(1)
            return
        self._receive(frame)
        self._closed(stream, "HEADERS")

    def _receive(self, frame: Frame) -> None:
        self.frames += 1
        self._last_kind = frame.kind
        connection = self._connection
        try:
            connection.receive_data(frame.wire())
            received = connection.events()
        except ngh2.DenialOfServiceError as error:
            raise HTTP2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
        except ngh2.NGH2Error as error:
            raise HTTP2ConnectionError(ErrorCode.INTERNAL_ERROR, str(error)) from error
        if received:
            self._events.extend(received)
        else:
            if frame.kind == http2_frames.HEADERS:
                self.budget.spend(len(frame.payload) // MALFORMED_BYTES_PER_CHARGE)
            self._fetch()

    def _fetch(self) -> None:
        """Fetch the library's output, and with it the events of what it has ended on its own."""
        connection = self._connection
        try:
            self._out += connection.data_to_send()
        except ngh2.ConnectionStateError:
            return  # it has failed, and `receive` has reported that
        except ngh2.NGH2Error as error:
            self._broken = str(error)
        for event in connection.events():
            if type(event) is not events.StreamClosed or (event.error_code and event.stream_id not in self._resets):
                self._events.append(event)

    def _notify(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived | events.ResponseReceived):
            self._stream = event.stream_id
            self._head_received(event.stream_id, self._list(event.headers), event.end_stream)
        elif isinstance(event, events.DataReceived):
            self._stream = stream = event.stream_id
            if event.end_stream:
                self._unfinished.discard(stream)
            self._handler.body_received(stream, event.data, len(event.data), event.end_stream)
        elif isinstance(event, events.StreamClosed):
            self._stream_closed(event)
        elif isinstance(event, events.TrailersReceived):
            self._stream = event.stream_id
            self._trailers_received(event.stream_id, self._list(event.headers), "")
        elif isinstance(event, events.WindowUpdated):
            self._handler.window_updated(event.stream_id)
        elif isinstance(event, events.InformationalResponseReceived):
            self._stream = event.stream_id
            self._handler.headers_received(event.stream_id, self._list(event.headers), False)
        elif isinstance(event, events.SettingsReceived):
            self._max_streams = event.settings.get(Setting.MAX_CONCURRENT_STREAMS, self._max_streams)
            self._handler.window_updated(0)
        elif isinstance(event, events.StreamReset):
            self._forget(event.stream_id)
            self._remember_reset(event.stream_id)
            self._handler.stream_reset(event.stream_id, event.error_code, "")
        elif isinstance(event, events.ConnectionClosed):
            self._goaway_fetched = True
            code, text = event.error_code, event.debug_data.decode("latin-1")
            name = ErrorCode(code).name if code in list(ErrorCode) else "error"
            raise HTTP2ConnectionError(code, text or f"{name} {code:#x}")

    def _stream_closed(self, event: events.StreamClosed) -> None:
        """The library has reset a stream on its own."""
        stream = event.stream_id
        if event.error_code and stream not in self._resets:
            self._stream, fault = stream, self._fault(stream)
            self._forget(stream)
            self._remember_reset(stream)
            self._handler.stream_reset(stream, event.error_code, fault)
            self.budget.spend(1)

    def _fault(self, stream: int) -> str:
        """Return why the library has reset a stream. Its events lack the reason, but follow the frame at once."""
        if self._last_kind == http2_frames.DATA:
            return WRONG_LENGTH if self._client else "the body does not have the declared length"
        if self._last_kind != http2_frames.HEADERS:
            return "it violated HTTP/2"
        if stream in self._unfinished:
            return "malformed trailers"
        return UNREADABLE_HEAD if self._client else "the header list is malformed"

    def _idle(self, stream: int) -> bool:
        return stream > self._highest or stream % 2 == 0

    def _is_open(self, stream: int) -> bool:
        """Whether a stream is not closed in both directions."""
        return self._window(stream) is not None

    def _window(self, stream: int) -> int | None:
        try:
            return self._connection.stream_remote_window_size(stream)
        except ngh2.NGH2Error:
            return None

    def _last_inbound(self) -> int:
        return 0 if self._client else self._highest

    # --- sending

    def request(self, fields: Fields, done: bool) -> int:
        """See `http2_codec.Codec`."""
        try:
            stream = self._connection.send_request(fields, end_stream=done)
        except ngh2.NGH2Error as error:
            raise RequestNotSent(str(error)) from error
        self._highest = stream
        self._fetch()  # before that, the stream has no window
        if not self._is_open(stream):  # the instance allows fewer streams than there are
            self._reset(stream, ErrorCode.CANCEL)
            raise RequestNotSent("the connection has no stream for it")
        self._awaiting_response.add(stream)
        return stream

    def send_head(self, stream: int, fields: Fields, done: bool) -> bool:
        """See `http2_codec.Codec`."""
        try:
            self._connection.send_response(stream, fields, end_stream=done)
        except ngh2.NGH2Error:
            return False
        return True

    def send_interim(self, stream: int, fields: Fields) -> None:
        """See `http2_codec.Codec`."""
        try:
            self._connection.send_informational_response(stream, fields)
        except ngh2.NGH2Error:
            return

    def send_trailers(self, stream: int, fields: Fields) -> bool:
        """See `http2_codec.Codec`."""
        try:
            self._connection.send_trailers(stream, fields)
        except ngh2.NGH2Error:
            return False
        return True

    def sendable(self, stream: int) -> int:
        """See `http2_codec.Codec`."""
        window, connection = self._window(stream), self._connection
        if window is None:
            return -1
        return max(
            0,
            min(
                window - connection.queued_body_size(stream),
                connection.remote_window_size - connection.queued_body_size(),
            ),
        )

    def send_data(self, stream: int, data: bytes, done: bool) -> bool:
        """See `http2_codec.Codec`."""
        try:
            self._connection.send_data(stream, data, end_stream=done)
        except ngh2.NGH2Error:
            return False
        return True

    def reset(self, stream: int, code: int) -> None:
        """See `http2_codec.Codec`."""
        if self._is_open(stream):
            if code == ErrorCode.NO_ERROR:
                self._fetch()  # RST_STREAM would overtake the end of the response
            self._reset(stream, code)
        elif code == ErrorCode.STREAM_CLOSED:
            self._own_frames += Frame(http2_frames.RST_STREAM, 0, stream, int(code).to_bytes(4, "big")).wire()
        self._forget(stream)

    def _reset(self, stream: int, code: int) -> None:
        self._remember_reset(stream)
        try:
            self._connection.reset_stream(stream, code)
        except ngh2.NGH2Error:
            return  # the connection is ending

    def _remember_reset(self, stream: int) -> None:
        self._resets[stream] = None
        if len(self._resets) > MAX_RESETS:
            del self._resets[next(iter(self._resets))]

    def acknowledge(self, size: int, stream: int) -> None:
        """See `http2_codec.Codec`."""
        try:
            self._connection.acknowledge_received_data(size, stream)
        except ngh2.NGH2Error:
            return  # the connection is ending

    def send_goaway(self, code: int) -> None:
        """See `http2_codec.Codec`."""
        if not self._goaway_fetched:
            super().send_goaway(code)

    def _library_output(self) -> bytes:
        self._fetch()
        data, self._out = self._out, b""
        return data
