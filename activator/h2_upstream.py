"""HTTP/2 connections to instances whose port is named `h2c`: prior knowledge, many exchanges on one connection."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from activator.h2_flow import Outbox
from activator.heads import CHUNKED, ResponseHead, split, valid_fields

if TYPE_CHECKING:
    from activator.exchange import Exchange
    from activator.upstream import Instance

STREAM_WINDOW = 262_144
CONNECTION_WINDOW = 16 * 1024 * 1024
MAX_STREAMS = 100
"""Streams on one connection before another one is opened; an instance may allow fewer."""

_NOT_IN_HTTP2 = frozenset(
    (b"host", b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection")
)


class Link:
    """All HTTP/2 connections to one instance."""

    def __init__(self, instance: "Instance") -> None:
        self._instance = instance
        self._channels: list[Channel] = []
        self._waiting: deque[tuple[Exchange, int]] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self.usable = True

    def carry(self, exchange: "Exchange") -> None:
        """Send an exchange that has a slot."""
        for channel in self._channels:
            if channel.room():
                channel.start(exchange)
                return
        self._waiting.append((exchange, exchange.number))
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            channel = cast(Channel, await self._instance.dial(lambda: Channel(self)))
        except (OSError, TimeoutError) as error:
            self._connecting = None
            waiting, self._waiting = self._waiting, deque()
            for exchange, number in waiting:
                if exchange.number == number:
                    exchange.unreachable(error)
            return
        self._connecting = None
        self._instance.failures = 0
        self._channels.append(channel)
        waiting, self._waiting = self._waiting, deque()
        for exchange, number in waiting:
            if exchange.number == number:
                self.carry(exchange)

    def lost(self, channel: "Channel") -> None:
        """A connection ended, or takes no more streams."""
        if channel in self._channels:
            self._channels.remove(channel)

    def retire(self) -> None:
        """Close connections that carry nothing, the others after their last stream."""
        self.usable = False
        for channel in list(self._channels):
            channel.retire()


class Channel(asyncio.Protocol):
    """One connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        # What we send was checked when it was read; what an instance sends is checked by `_head` and `valid_fields`.
        config = h2.config.H2Configuration(
            client_side=True, header_encoding=None, normalize_inbound_headers=False, validate_inbound_headers=False,
            validate_outbound_headers=False, normalize_outbound_headers=False,
        )  # fmt: skip
        self.connection = h2.connection.H2Connection(config)
        self.streams: dict[int, OriginStream] = {}
        self.stuck = False
        self.unwritten = 0
        self._flushing = False
        self._leaving = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            h2.events.ResponseReceived: self._response,
            h2.events.InformationalResponseReceived: self._interim,
            h2.events.DataReceived: self._data,
            h2.events.TrailersReceived: self._trailers,
            h2.events.StreamReset: self._reset,
            h2.events.WindowUpdated: self._window,
            h2.events.RemoteSettingsChanged: self._settings,
            h2.events.ConnectionTerminated: self._terminated,
        }

    def room(self) -> bool:
        """Whether one more stream may be started."""
        allowed = min(MAX_STREAMS, self.connection.remote_settings.max_concurrent_streams)
        return not self._leaving and not self.transport.is_closing() and len(self.streams) < allowed

    def start(self, exchange: "Exchange") -> None:
        """Send a request."""
        stream = OriginStream(self, self.connection.get_next_available_stream_id(), exchange)
        self.streams[stream.id] = stream
        stream.start()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=True, initial_values={codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        )
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(CONNECTION_WINDOW)
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.lost(self)
        for stream in list(self.streams.values()):
            stream.broken("it closed the connection", unsent=False)
        self.streams.clear()

    def pause_writing(self) -> None:
        self.stuck = True

    def resume_writing(self) -> None:
        self.stuck = False
        self._pump()
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.connection.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.flush()
            self.transport.close()
            for stream in list(self.streams.values()):
                stream.broken(f"it broke HTTP/2: {error}", unsent=False)
            self.streams.clear()
            return
        for event in events:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)
        self.flush()

    def flush(self) -> None:
        """Write what the library has made."""
        self._flushing = False
        self.unwritten = 0
        data = self.connection.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def flush_soon(self) -> None:
        """Write in this turn of the loop."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def forget(self, stream: "OriginStream") -> None:
        """A stream is over."""
        self.streams.pop(stream.id, None)
        if self._leaving and not self.streams:
            self.transport.close()

    def retire(self) -> None:
        """Take no more streams; close after the last one."""
        self._leaving = True
        self._link.lost(self)
        if not self.streams:
            self.transport.close()

    def _pump(self) -> None:
        for stream in list(self.streams.values()):
            stream.outbox.pump()

    def _response(self, event: h2.events.ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.answered(cast("list[tuple[bytes, bytes]]", event.headers or []), event.stream_ended is not None)

    def _interim(self, event: h2.events.InformationalResponseReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.informed(cast("list[tuple[bytes, bytes]]", event.headers or []))

    def _data(self, event: h2.events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        size = event.flow_controlled_length or 0
        if stream is None:
            self.connection.acknowledge_received_data(size, event.stream_id or 0)
        else:
            stream.take(event.data or b"", size, event.stream_ended is not None)

    def _trailers(self, event: h2.events.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.take_trailers(cast("list[tuple[bytes, bytes]]", event.headers or []))

    def _reset(self, event: h2.events.StreamReset) -> None:
        stream = self.streams.pop(event.stream_id or 0, None)
        if stream is not None:
            refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
            stream.broken("it reset the stream", unsent=refused)

    def _window(self, event: h2.events.WindowUpdated) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.outbox.pump()
        elif not event.stream_id:
            self._pump()

    def _settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        self._pump()

    def _terminated(self, event: h2.events.ConnectionTerminated) -> None:
        """RFC 9113 §6.8: streams above the last one were not looked at, so they may be sent again."""
        self.retire()
        last = event.last_stream_id or 0
        for stream in [each for each in self.streams.values() if each.id > last]:
            self.streams.pop(stream.id, None)
            stream.broken("it goes away", unsent=True)
        if not self.streams:
            self.transport.close()


class OriginStream:
    """One exchange's part of a connection; see `exchange.OriginSide`."""

    __slots__ = ("_body_sent", "_channel", "_exchange", "_held", "_paused", "_started", "id", "outbox")

    def __init__(self, channel: Channel, id_: int, exchange: "Exchange") -> None:
        self.id = id_
        self.outbox = Outbox(channel, id_, self._full, self._free, self._sent)
        self._channel = channel
        self._exchange: Exchange | None = exchange
        self._held = 0
        self._paused = False
        self._started = False
        self._body_sent = False

    def start(self) -> None:
        """Send the head and what there is of the body."""
        exchange = self._exchange
        assert exchange is not None
        exchange.origin = self
        head = exchange.head
        fields = [
            (b":method", head.method), (b":scheme", b"http"), (b":authority", head.authority), (b":path", head.target)
        ]  # fmt: skip
        lines = exchange.outgoing.partition(b"\r\n")[2]
        fields += [(n, v) for n, v in ((n.lower(), v) for n, v in split(lines)) if n not in _NOT_IN_HTTP2]
        empty = exchange.body_done and not exchange.pending and not exchange.trailers
        try:
            self._channel.connection.send_headers(self.id, fields, end_stream=empty)
        except h2.exceptions.ProtocolError as error:
            self._channel.streams.pop(self.id, None)
            self.broken(f"the request cannot be said in HTTP/2: {error}", unsent=False)
            return
        self._channel.flush_soon()
        if empty:
            self._body_sent = True
        else:
            exchange.flush(self)

    # --- what the exchange does

    def send(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        self.outbox.add(data, done, trailers)
        self._channel.flush_soon()

    def tunnel(self, data: bytes) -> None:
        raise AssertionError("nothing is upgraded in HTTP/2")

    def cancel(self) -> None:
        self._exchange = None
        self.outbox.drop()
        self._acknowledge()
        self._stop(h2.errors.ErrorCodes.CANCEL)
        self._channel.forget(self)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._acknowledge()
        self._channel.flush_soon()

    def _full(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_body()

    def _free(self) -> None:
        if self._exchange is not None:
            self._exchange.resume_body()

    def _sent(self) -> None:
        self._body_sent = True

    def _stop(self, code: h2.errors.ErrorCodes) -> None:
        try:
            self._channel.connection.reset_stream(self.id, code)
        except h2.exceptions.ProtocolError:
            return  # closed already
        self._channel.flush_soon()

    def _acknowledge(self) -> None:
        held, self._held = self._held, 0
        if held and not self._channel.transport.is_closing():
            self._channel.connection.acknowledge_received_data(held, self.id)

    # --- what the instance sends

    def answered(self, fields: list[tuple[bytes, bytes]], done: bool) -> None:
        exchange = self._exchange
        head = _head(fields)
        if exchange is None:
            return
        if head is None:
            self._channel.streams.pop(self.id, None)
            self._stop(h2.errors.ErrorCodes.PROTOCOL_ERROR)
            self.broken("the head of its answer cannot be read", unsent=False)
            return
        self._started = True
        if done:
            self._end()
        exchange.answer(head, b"", done)

    def informed(self, fields: list[tuple[bytes, bytes]]) -> None:
        head = _head(fields)
        if self._exchange is not None and head is not None and head.status != 101:
            self._exchange.interim(head)

    def take(self, data: bytes, size: int, done: bool) -> None:
        self._held += size
        if not self._paused:
            self._acknowledge()
        exchange = self._exchange
        if exchange is None:
            return
        if done:
            self._end()
            exchange.more(data, True)
        elif data:
            exchange.more(data, False)

    def take_trailers(self, fields: list[tuple[bytes, bytes]]) -> None:
        exchange = self._exchange
        block = b"".join(b"%b: %b\r\n" % field for field in fields)
        if exchange is not None:
            self._end()
            exchange.more(b"", True, block if valid_fields(block) else b"")

    def _end(self) -> None:
        """The answer is whole."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.origin = None
        self._acknowledge()
        if not self._body_sent:
            self.outbox.drop()
            self._stop(h2.errors.ErrorCodes.NO_ERROR)
        self._channel.forget(self)

    def broken(self, why: str, unsent: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.broken(why, reused=False, unsent=unsent)


def _head(fields: list[tuple[bytes, bytes]]) -> ResponseHead | None:
    """Fields of a response as a head; None when they cannot be passed on."""
    status, length, lines = 0, CHUNKED, []
    for name, value in fields:
        if name == b":status":
            status = int(value) if value.isdigit() else 0
        elif name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                return None
            length = int(value)
        elif name not in _NOT_IN_HTTP2:
            lines.append(b"%b: %b\r\n" % (name, value))
    block = b"".join(lines)
    if not 100 <= status <= 599 or not valid_fields(block):
        return None
    return ResponseHead(status, b"", block, length)
