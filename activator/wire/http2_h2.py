"""An HTTP/2 codec on the h2 library: pure Python, for platforms without a compiled library."""

from collections.abc import Callable
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hpack

from activator.wire import http2_frames
from activator.wire.http2_base import MAX_INT31, CodecBase, is_interim
from activator.wire.http2_codec import MAX_DECODED_HEADER_LIST, CodecOptions, FrameHandler, RequestNotSent
from activator.wire.http2_errors import ErrorCode, HTTP2ConnectionError, HTTP2StreamError, Setting
from activator.wire.http2_fields import Fields
from activator.wire.http2_frames import Frame

TABLE_SIZE = 4096
"""Bytes of the compression table for what we send: the initial value of RFC 9113 §6.5.2."""


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
            raise HTTP2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
        except Exception as error:  # hpack raises several kinds for malformed bytes
            raise HTTP2ConnectionError(ErrorCode.COMPRESSION_ERROR, f"invalid header block: {error}") from error
        self.fields = cast(Fields, fields)
        return [(b":status", b"100")] if is_interim(self.fields) and not self.done else []


class _Encoder(hpack.Encoder):
    """Uses no more of the table than a peer allows at first: its setting could be four gigabytes."""

    @property
    def header_table_size(self) -> int:
        """See hpack."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        super(_Encoder, type(self)).header_table_size.__set__(self, min(value, TABLE_SIZE))  # type: ignore[attr-defined]


class H2Codec(CodecBase):
    """See the module."""

    def __init__(self, handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> None:
        """Args: clock: seconds, monotonic."""
        super().__init__(handler, clock, options)
        client = options.client
        # Received header lists are validated by `http2_fields`; sent ones were validated when they were received.
        config = h2.config.H2Configuration(
            client_side=client, header_encoding=None, normalize_inbound_headers=False, validate_inbound_headers=False,
            validate_outbound_headers=False, normalize_outbound_headers=False,
        )  # fmt: skip
        connection = self._connection = h2.connection.H2Connection(config)
        self._decoder = connection.decoder = _Decoder()
        connection.encoder = _Encoder()
        settings: dict[Any, int] = {int(setting): value for setting, value in options.settings.items()}
        connection.local_settings = h2.settings.Settings(client=client, initial_values=settings)
        connection.initiate_connection()
        connection.increment_flow_control_window(options.window)
        # The library would end the connection for an excess stream; `http2_frames` has checked the length of frames.
        settings[int(Setting.MAX_CONCURRENT_STREAMS)] = MAX_INT31
        connection.local_settings = h2.settings.Settings(client=client, initial_values=settings)
        connection.max_inbound_frame_size = MAX_INT31
        if not client:
            connection.receive_data(http2_frames.PREFACE)

    @property
    def pending(self) -> bool:
        """See `http2_codec.Codec`."""
        return False

    @property
    def max_streams(self) -> int:
        """See `http2_codec.Codec`."""
        return self._connection.remote_settings.max_concurrent_streams

    # --- receiving

    def _step(self) -> bool:
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
        if kind == http2_frames.RST_STREAM:
            if stream in self._unfinished or stream in self._connection.streams:
                self.budget.spend(1)
            elif self._idle(stream):
                raise HTTP2ConnectionError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on a stream that was never opened")
        elif kind == http2_frames.DATA and stream not in self._unfinished:
            if stream in self._awaiting_response:
                raise HTTP2StreamError(stream, ErrorCode.PROTOCOL_ERROR, "DATA before HEADERS")
            self.budget.spend(1)
            if self._connection._stream_is_closed_by_end(stream):
                raise HTTP2ConnectionError(ErrorCode.STREAM_CLOSED, "DATA on a closed stream")
        for event in self._receive(frame):
            if type(event) is not h2.events.StreamEnded:
                self._notify(event, frame)

    def _receive(self, frame: Frame) -> list[h2.events.Event]:
        self.frames += 1
        try:
            return self._connection.receive_data(frame.wire())
        except h2.exceptions.ProtocolError as error:
            self._connection.clear_outbound_data_buffer()  # the library's own GOAWAY
            raise HTTP2ConnectionError(int(error.error_code), str(error)) from error

    def _headers(self, frame: Frame) -> None:
        stream, done = frame.stream, bool(frame.flags & http2_frames.END_STREAM)
        trailing, decoder = stream in self._unfinished, self._decoder
        fault = ""
        if not done and trailing:
            fault, frame = "trailers do not end the stream", frame._replace(flags=frame.flags | http2_frames.END_STREAM)
        elif not trailing and stream not in self._awaiting_response and not self._idle(stream):
            self.budget.spend(1)  # its stream is closed
        decoder.fields, decoder.done = [], done
        events = self._receive(frame)
        headers = self._list([(field[0], field[1]) for field in decoder.fields])
        for event in events:
            kind = type(event)
            if kind is h2.events.RequestReceived or kind is h2.events.ResponseReceived:
                self._head_received(stream, headers, done)
            elif kind is h2.events.TrailersReceived:
                self._trailers_received(stream, headers, fault)
            elif kind is h2.events.InformationalResponseReceived:
                self._handler.headers_received(stream, headers, False)
            elif kind is not h2.events.StreamEnded:
                self._notify(event, frame)

    def _notify(self, event: h2.events.Event, frame: Frame) -> None:
        match event:
            case h2.events.DataReceived():
                done = event.stream_ended is not None
                if done:
                    self._unfinished.discard(frame.stream)
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
        connection = self._connection
        ours = stream % 2 == int(self._client)
        return stream > (connection.highest_outbound_stream_id if ours else connection.highest_inbound_stream_id)

    def _last_inbound(self) -> int:
        return self._connection.highest_inbound_stream_id

    # --- sending

    def request(self, fields: Fields, done: bool) -> int:
        """See `http2_codec.Codec`."""
        try:
            stream = self._connection.get_next_available_stream_id()
            self._connection.send_headers(stream, fields, end_stream=done)
        except h2.exceptions.ProtocolError as error:
            raise RequestNotSent(str(error)) from error
        # The library would treat a body in the response to HEAD as a connection error.
        self._connection.streams[stream].request_method = None
        self._awaiting_response.add(stream)
        return stream

    def send_head(self, stream: int, fields: Fields, done: bool) -> bool:
        """See `http2_codec.Codec`."""
        try:
            self._connection.send_headers(stream, fields, end_stream=done)
        except h2.exceptions.ProtocolError:
            return False
        return True

    def send_interim(self, stream: int, fields: Fields) -> None:
        """See `http2_codec.Codec`."""
        self.send_head(stream, fields, False)

    def send_trailers(self, stream: int, fields: Fields) -> bool:
        """See `http2_codec.Codec`."""
        return self.send_head(stream, fields, True)

    def sendable(self, stream: int) -> int:
        """See `http2_codec.Codec`."""
        connection = self._connection
        try:
            return max(0, min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size))
        except h2.exceptions.ProtocolError:
            return -1

    def send_data(self, stream: int, data: bytes, done: bool) -> bool:
        """See `http2_codec.Codec`."""
        try:
            self._connection.send_data(stream, data, end_stream=done)
        except h2.exceptions.ProtocolError:
            return False
        return True

    def reset(self, stream: int, code: int) -> None:
        """See `http2_codec.Codec`."""
        self._forget(stream)
        try:
            self._connection.reset_stream(stream, code)
        except h2.exceptions.ProtocolError:
            return

    def acknowledge(self, size: int, stream: int) -> None:
        """See `http2_codec.Codec`."""
        try:
            self._connection.acknowledge_received_data(size, stream)
        except h2.exceptions.ProtocolError:
            return  # the connection is ending

    def _library_output(self) -> bytes:
        return self._connection.data_to_send()
