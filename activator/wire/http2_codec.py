"""One end of an HTTP/2 connection on the h2 library: bytes to calls of a handler, and back.

The library keeps stream states, windows and compression. It treats each malformed message as a connection error, where
RFC 9113 §5.4.2 has stream errors. So `http2_frames` parses frames and `http2_fields` validates header lists first; the
library gets one valid frame at a time, without its header list, and whatever it still rejects is a connection error.
"""

from collections.abc import Callable
from typing import Any, Protocol, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hpack
import structlog
from h2.errors import ErrorCodes

from activator.wire import http2_fields, http2_frames
from activator.wire.http2_fields import Fields
from activator.wire.http2_frames import Budget, Frame, FrameReader, HTTP2ConnectionError, HTTP2StreamError

log = structlog.get_logger()

MAX_HEADER_LIST = 65_536
"""Bytes of a header list after decompression, counted as in RFC 9113 §6.5.2; a longer request gets a 431."""
MAX_DECODED_HEADER_LIST = 2 * MAX_HEADER_LIST
"""A longer list is not decompressed to its end, so the connection ends."""
UNCHARGED_HEADER_BYTES, HEADER_BYTES_PER_CHARGE = 16_384, 8192
"""Bytes of a header list without a charge, and bytes beyond for each charge."""
HEADER_FIELDS_PER_CHARGE = 32
"""Fields of a header list for each charge."""
DATA_SENT, ANSWERED = 2, 2
"""Charges earned by a sent DATA frame, and by a response of an instance."""
MAX_INT31 = 2**31 - 1


class FrameHandler(Protocol):
    """Receives the events of a connection: `Http2Connection` of a client, `Http2Upstream` of an instance."""

    def headers_received(self, stream: int, fields: Fields, done: bool, size: int) -> None:
        """The head of a request or of a response (also 1xx) arrived. Args: size: of the header list, in bytes."""
        ...

    def body_received(self, stream: int, data: bytes, size: int, done: bool) -> None:
        """Part of a body arrived. Args: size: bytes that count for flow control."""
        ...

    def trailers_received(self, stream: int, lines: bytes) -> None:
        """Trailer fields arrived, and with them the end of the message."""
        ...

    def stream_reset(self, stream: int, code: int, fault: str) -> None:
        """The stream was reset. Args: fault: the stream error of the peer; empty if the peer reset it."""
        ...

    def window_updated(self, stream: int) -> None:
        """More may be sent on a stream; on all of them if it is 0."""
        ...

    def goaway_received(self, last: int) -> None:
        """GOAWAY arrived. Args: last: the highest stream that the peer processes."""
        ...

    def connection_failed(self, text: str) -> None:
        """The connection must end; GOAWAY is ready to be sent."""
        ...

    def stream_failed(self, stream: int) -> None:
        """Handling a frame of a stream (0: of none) raised an unexpected exception: end the stream."""
        ...


class _Decoder(hpack.Decoder):
    """Keeps the decoded fields, and gives the library only what it needs for the state of the stream."""

    def __init__(self) -> None:
        super().__init__(MAX_DECODED_HEADER_LIST)
        self.fields: Fields = []
        self.done = False
        """The block ends its stream, so it cannot be a 1xx."""

    def decode(self, data: bytes, raw: bool = False) -> Any:
        try:
            fields = super().decode(data, raw=True)
        except hpack.OversizedHeaderListError as error:
            raise HTTP2ConnectionError(ErrorCodes.ENHANCE_YOUR_CALM, str(error)) from error
        except Exception as error:  # hpack raises several kinds for malformed bytes
            raise HTTP2ConnectionError(ErrorCodes.COMPRESSION_ERROR, f"invalid header block: {error}") from error
        self.fields = cast(Fields, fields)
        return [(b":status", b"100")] if _is_interim(self.fields) and not self.done else []


def _is_interim(fields: Fields) -> bool:
    return bool(fields) and fields[0][0] == b":status" and fields[0][1][:1] == b"1"


class Codec:
    """See the module.

    Attributes beyond a dozen: what the library does not keep of streams.
    """

    def __init__(
        self, handler: FrameHandler, clock: Callable[[], float], *, client: bool, settings: dict[Any, int], window: int
    ) -> None:
        """
        Args:
            clock: seconds, monotonic.
            client: the peer is a server.
            settings: ours, by `h2.settings.SettingCodes`.
            window: bytes of bodies that the peer may send on the whole connection before they are acknowledged.
        """
        self._handler = handler
        self._client = client
        self._clock = clock
        self.budget = Budget(clock)
        self._reader = FrameReader(self.budget, preface=not client)
        # Received header lists are validated by `http2_fields`; sent ones were validated when they were received.
        config = h2.config.H2Configuration(
            client_side=client, header_encoding=None, normalize_inbound_headers=False, validate_inbound_headers=False,
            validate_outbound_headers=False, normalize_outbound_headers=False,
        )  # fmt: skip
        connection = self.connection = h2.connection.H2Connection(config)
        self._decoder = connection.decoder = _Decoder()
        self._heads: set[int] = set()
        """Streams whose head arrived and whose end did not: another HEADERS has their trailers."""
        self._awaiting_response: set[int] = set()
        """Streams that we opened and that have no response head yet."""
        self._own_frames = b""
        self.ended = False
        connection.local_settings = h2.settings.Settings(client=client, initial_values=settings)
        connection.initiate_connection()
        connection.increment_flow_control_window(window)
        # The library would end the connection for an excess stream; `http2_frames` has checked the length of frames.
        connection.local_settings = h2.settings.Settings(
            client=client, initial_values={**settings, h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_INT31}
        )
        connection.max_inbound_frame_size = MAX_INT31
        if not client:
            connection.receive_data(http2_frames.PREFACE)

    @property
    def mid_block(self) -> bool:
        """Whether the preface or a header block is incomplete."""
        return self._reader.mid_block

    # --- receiving

    def feed(self, data: bytes) -> None:
        """Append received bytes, for `work`."""
        if not self.ended:
            self._reader.feed(data)

    def work(self, until: float) -> bool:
        """Process frames until a time of the clock; returns whether there are more. Raises nothing."""
        while not self.ended:
            stream = 0
            try:
                frame = self._reader.next()
                if frame is None:
                    return False
                stream = frame.stream
                self._take(frame)
            except HTTP2StreamError as fault:
                self._refuse(fault)
            except HTTP2ConnectionError as fault:
                self.fail(fault.code, str(fault))
            except h2.exceptions.ProtocolError as error:
                self.connection.clear_outbound_data_buffer()  # the library's own GOAWAY
                self.fail(error.error_code, str(error))
            except Exception as error:
                log.exception("frame handling failed", stream=stream, error=repr(error))
                self._handler.stream_failed(stream)
            if self._clock() >= until:
                return not self.ended
        return False

    def _take(self, frame: Frame) -> None:
        kind, stream = frame.kind, frame.stream
        if kind == http2_frames.HEADERS:
            self._headers(frame)
            return
        if kind == http2_frames.PING:
            if not frame.flags & http2_frames.ACK:
                self._own_frames += Frame(kind, http2_frames.ACK, 0, frame.payload).wire()
            return
        if kind == http2_frames.GOAWAY:
            # The library would stop receiving and sending, but open streams continue (§6.8).
            self._handler.goaway_received(int.from_bytes(frame.payload[:4]) & MAX_INT31)
            return
        if kind == http2_frames.RST_STREAM:
            if stream in self._heads or stream in self.connection.streams:
                self.budget.spend(1)
            elif self._idle(stream):
                raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "RST_STREAM on a stream that was never opened")
        elif kind == http2_frames.DATA and stream not in self._heads:
            if stream in self._awaiting_response:
                raise HTTP2StreamError(stream, ErrorCodes.PROTOCOL_ERROR, "DATA before HEADERS")
            self.budget.spend(1)
        for event in self.connection.receive_data(frame.wire()):
            if type(event) is not h2.events.StreamEnded:
                self._notify(event, frame)

    def _headers(self, frame: Frame) -> None:
        stream, done = frame.stream, bool(frame.flags & http2_frames.END_STREAM)
        trailing, decoder = stream in self._heads, self._decoder
        fault = ""
        if not done and trailing:
            fault, frame = "trailers do not end the stream", frame._replace(flags=frame.flags | http2_frames.END_STREAM)
        elif not trailing and stream not in self._awaiting_response and not self._idle(stream):
            self.budget.spend(1)  # its stream is closed
        decoder.fields, decoder.done = [], done
        events = self.connection.receive_data(frame.wire())
        fields = decoder.fields
        size = sum([len(name) + len(value) for name, value in fields]) + 32 * len(fields)
        charges = (
            max(0, size - UNCHARGED_HEADER_BYTES) // HEADER_BYTES_PER_CHARGE + len(fields) // HEADER_FIELDS_PER_CHARGE
        )
        if charges:
            self.budget.spend(charges)
        for event in events:
            kind = type(event)
            if kind is h2.events.RequestReceived or kind is h2.events.ResponseReceived:
                self._awaiting_response.discard(stream)
                if self._client:
                    fault = "a 1xx ends the stream" if _is_interim(fields) else ""
                else:
                    fault = http2_fields.request_fault(fields, done)
                if fault:
                    raise HTTP2StreamError(stream, ErrorCodes.PROTOCOL_ERROR, fault)
                if not done:
                    self._heads.add(stream)
                self._handler.headers_received(stream, fields, done, size)
            elif kind is h2.events.TrailersReceived:
                lines = http2_fields.trailers(fields)
                self._heads.discard(stream)
                if fault or lines is None:
                    raise HTTP2StreamError(stream, ErrorCodes.PROTOCOL_ERROR, fault or "malformed trailers")
                self._handler.trailers_received(stream, lines)
            elif kind is h2.events.InformationalResponseReceived:
                self._handler.headers_received(stream, fields, False, size)
            elif kind is not h2.events.StreamEnded:
                self._notify(event, frame)

    def _notify(self, event: h2.events.Event, frame: Frame) -> None:
        match event:
            case h2.events.DataReceived():
                done = event.stream_ended is not None
                if done:
                    self._heads.discard(frame.stream)
                self._handler.body_received(frame.stream, event.data or b"", event.flow_controlled_length or 0, done)
            case h2.events.StreamReset():
                self._forget(frame.stream)
                if not event.remote_reset:
                    self.budget.spend(1)
                self._handler.stream_reset(
                    frame.stream, int(event.error_code or 0), "" if event.remote_reset else "it violated HTTP/2"
                )
            case h2.events.WindowUpdated():
                self._handler.window_updated(event.stream_id or 0)
            case h2.events.RemoteSettingsChanged():
                self._handler.window_updated(0)

    def _idle(self, stream: int) -> bool:
        """Whether a stream was never opened."""
        connection = self.connection
        ours = stream % 2 == int(self._client)
        return stream > (connection.highest_outbound_stream_id if ours else connection.highest_inbound_stream_id)

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
        self._heads.discard(stream)
        self._awaiting_response.discard(stream)

    def fail(self, code: int, text: str) -> None:
        """End the connection. Args: code: of GOAWAY. text: the reason, for the log."""
        if not self.ended:
            self.send_goaway(code)
            self.ended = True
            self._handler.connection_failed(text)

    # --- sending

    def send_headers(self, stream: int, fields: Fields, done: bool) -> bool:
        """Send a head or trailers; returns False if the peer has closed the stream."""
        try:
            self.connection.send_headers(stream, fields, end_stream=done)
        except h2.exceptions.ProtocolError:
            return False
        return True

    def request(self, fields: Fields, done: bool) -> int:
        """Open a stream; returns its number. Raises: h2.exceptions.ProtocolError."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, fields, end_stream=done)
        # The library would treat a body in the response to HEAD as a connection error.
        self.connection.streams[stream].request_method = None
        self._awaiting_response.add(stream)
        return stream

    def reset(self, stream: int, code: int) -> None:
        """Reset a stream, unless it is closed already."""
        self._forget(stream)
        try:
            self.connection.reset_stream(stream, code)
        except h2.exceptions.ProtocolError:
            return

    def acknowledge(self, size: int, stream: int) -> None:
        """Allow the peer to send as many more bytes of bodies."""
        try:
            self.connection.acknowledge_received_data(size, stream)
        except h2.exceptions.ProtocolError:
            return  # the connection is ending

    def send_goaway(self, code: int) -> None:
        """Send GOAWAY. Open streams continue."""
        connection = self.connection
        last = connection.highest_inbound_stream_id
        self._own_frames += Frame(
            http2_frames.GOAWAY, 0, 0, last.to_bytes(4, "big") + int(code).to_bytes(4, "big")
        ).wire()

    def output(self) -> bytes:
        """Return the bytes to be written."""
        data, own_frames, self._own_frames = self.connection.data_to_send(), self._own_frames, b""
        return data + own_frames if own_frames else data
