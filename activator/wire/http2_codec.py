"""One end of an HTTP/2 connection: bytes to what a stream's owner must know, on the h2 library.

The library keeps the states of streams, the windows and the compression; `h2_frames` reads the frames for it and
`h2_fields` looks at header lists, because the library takes each malformed message for the end of the connection, and
RFC 9113 §5.4.2 for the end of its stream. It sees one frame at a time, none that it would not take, and of header lists
nothing: so all that it refuses concerns the connection.
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
"""Bytes of a header list after decompression, counted as in RFC 9113 §6.5.2; a longer request is answered with 431."""
MAX_DECODED_HEADER_LIST = 2 * MAX_HEADER_LIST
"""Beyond this it is not decompressed to its end, so the connection ends."""
UNCHARGED_HEADER_BYTES, HEADER_BYTES_PER_CHARGE = 16_384, 8192
"""Bytes of a header list that cost no charge, and further ones that cost one."""
HEADER_FIELDS_PER_CHARGE = 32
"""Fields of a header list that cost a charge."""
DATA_SENT, ANSWERED = 2, 2
"""Charges earned by a DATA frame that was sent, and by a request that was answered."""
FAR = 2**31 - 1


class FrameHandler(Protocol):
    """Receives what comes on a connection: a client's `Session`, an instance's `Channel`."""

    def headers_received(self, stream: int, fields: Fields, done: bool, size: int) -> None:
        """The head of a message: a request's, or an answer's (also 1xx). Args: size: of the list, in bytes."""
        ...

    def body_received(self, stream: int, data: bytes, size: int, done: bool) -> None:
        """Part of a body. Args: size: bytes that count for flow control."""
        ...

    def trailers_received(self, stream: int, lines: bytes) -> None:
        """Trailer fields, and with them the end of the message."""
        ...

    def stream_reset(self, stream: int, code: int, fault: str) -> None:
        """The stream was reset. Args: fault: what the peer did wrong; empty when the peer reset it."""
        ...

    def window_updated(self, stream: int) -> None:
        """More may be sent on a stream; on all of them when 0."""
        ...

    def goaway_received(self, last: int) -> None:
        """GOAWAY came. Args: last: the highest stream that the peer looks at."""
        ...

    def connection_failed(self, text: str) -> None:
        """The connection must end; GOAWAY is among what is to be sent."""
        ...

    def stream_failed(self, stream: int) -> None:
        """A bug of ours showed on a stream (0: none in particular): end it, whatever it takes."""
        ...


class _Decoder(hpack.Decoder):
    """Keeps what it decoded for us, and shows the library nothing of it but what it needs for the stream's state."""

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
        except Exception as error:  # of several kinds, as bytes happen to be misread
            raise HTTP2ConnectionError(
                ErrorCodes.COMPRESSION_ERROR, f"a header block cannot be read: {error}"
            ) from error
        self.fields = cast(Fields, fields)
        return [(b":status", b"100")] if _is_interim(self.fields) and not self.done else []


def _is_interim(fields: Fields) -> bool:
    return bool(fields) and fields[0][0] == b":status" and fields[0][1][:1] == b"1"


class Codec:
    """See the module."""

    def __init__(
        self, handler: FrameHandler, clock: Callable[[], float], *, client: bool, settings: dict[Any, int], window: int
    ) -> None:
        """
        Args:
            clock: seconds, never goes back.
            client: the peer is a server.
            settings: ours, by `h2.settings.SettingCodes`.
            window: bytes of bodies that the peer may send on the whole connection before we take them.
        """
        self._handler = handler
        self._client = client
        self._clock = clock
        self.budget = Budget(clock)
        self._reader = FrameReader(self.budget, preface=not client)
        # Header lists are checked by `h2_fields` when they come, and were checked when they are sent on.
        config = h2.config.H2Configuration(
            client_side=client, header_encoding=None, normalize_inbound_headers=False, validate_inbound_headers=False,
            validate_outbound_headers=False, normalize_outbound_headers=False,
        )  # fmt: skip
        connection = self.connection = h2.connection.H2Connection(config)
        self._decoder = connection.decoder = _Decoder()
        self._heads: set[int] = set()
        """Streams whose head came and whose end did not: another HEADERS has their trailers."""
        self._awaiting_response: set[int] = set()
        """Streams of ours whose answer's head did not come."""
        self._own = b""
        self.ended = False
        connection.local_settings = h2.settings.Settings(client=client, initial_values=settings)
        connection.initiate_connection()
        connection.increment_flow_control_window(window)
        # The library would end the connection for a stream too many; the length of frames was checked by `h2_frames`.
        connection.local_settings = h2.settings.Settings(
            client=client, initial_values={**settings, h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: FAR}
        )
        connection.max_inbound_frame_size = FAR
        if not client:
            connection.receive_data(http2_frames.PREFACE)

    @property
    def mid_block(self) -> bool:
        """Whether the peer owes the rest of its preface or of a header block."""
        return self._reader.mid_block

    # --- what comes

    def feed(self, data: bytes) -> None:
        """Take bytes in, for `work`."""
        if not self.ended:
            self._reader.feed(data)

    def work(self, until: float) -> bool:
        """Read frames until a moment on the clock; says whether there are more. Raises nothing."""
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
                log.exception("bug in HTTP/2", stream=stream, error=repr(error))
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
                self._own += Frame(kind, http2_frames.ACK, 0, frame.payload).wire()
            return
        if kind == http2_frames.GOAWAY:
            # The library would take nothing more, and send nothing; the streams that there are go on (§6.8).
            self._handler.goaway_received(int.from_bytes(frame.payload[:4]) & FAR)
            return
        if kind == http2_frames.RST_STREAM:
            if stream in self._heads or stream in self.connection.streams:
                self.budget.spend(1)
            elif self._idle(stream):
                raise HTTP2ConnectionError(ErrorCodes.PROTOCOL_ERROR, "RST_STREAM on a stream that was never opened")
        elif kind == http2_frames.DATA and stream not in self._heads:
            if stream in self._awaiting_response:
                raise HTTP2StreamError(stream, ErrorCodes.PROTOCOL_ERROR, "a body comes before its head")
            self.budget.spend(1)
        for event in self.connection.receive_data(frame.wire()):
            if type(event) is not h2.events.StreamEnded:
                self._tell(event, frame)

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
                self._tell(event, frame)

    def _tell(self, event: h2.events.Event, frame: Frame) -> None:
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
                    frame.stream, int(event.error_code or 0), "" if event.remote_reset else "it broke HTTP/2"
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
        except HTTP2ConnectionError as calm:
            self.fail(calm.code, str(calm))
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

    # --- what goes

    def send_headers(self, stream: int, fields: Fields, done: bool) -> bool:
        """Send a head or trailers; says whether the stream took them: the peer may have closed it."""
        try:
            self.connection.send_headers(stream, fields, end_stream=done)
        except h2.exceptions.ProtocolError:
            return False
        return True

    def request(self, fields: Fields, done: bool) -> int:
        """Open a stream; returns its number. Raises: h2.exceptions.ProtocolError."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, fields, end_stream=done)
        # The library would take a body in the answer to HEAD for the end of the connection.
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
        """Let the peer send as many more bytes of bodies."""
        try:
            self.connection.acknowledge_received_data(size, stream)
        except h2.exceptions.ProtocolError:
            return  # the connection is ending

    def send_goaway(self, code: int) -> None:
        """GOAWAY. Streams that are there can still be carried."""
        connection = self.connection
        last = connection.highest_inbound_stream_id
        self._own += Frame(http2_frames.GOAWAY, 0, 0, last.to_bytes(4, "big") + int(code).to_bytes(4, "big")).wire()

    def output(self) -> bytes:
        """What is to be written."""
        data, own, self._own = self.connection.data_to_send(), self._own, b""
        return data + own if own else data
