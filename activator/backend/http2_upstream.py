"""HTTP/2 connections to instances whose port is named `h2c`: prior knowledge, many exchanges on one connection."""

import asyncio
from collections import deque
from typing import cast

import h2.exceptions
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from activator.backend.endpoint import Dialer
from activator.interfaces import Request
from activator.wire.contained import contained
from activator.wire.http1_parser import split
from activator.wire.http2_codec import ANSWERED, MAX_HEADER_LIST
from activator.wire.http2_fields import NOT_IN_HTTP2, Fields, response_head
from activator.wire.http2_flow import Outbox
from activator.wire.http2_protocol import STREAM_WINDOW, Http2Protocol
from activator.wire.turns import Turns

MAX_STREAMS = 100
"""Streams on one connection before another one is opened; an instance may allow fewer."""

FOREVER = float("inf")


class Link:
    """All HTTP/2 connections to one instance."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._channels: list[Channel] = []
        self._waiting: deque[tuple[Request, int]] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self.usable = True

    def carry(self, exchange: Request) -> None:
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
            channel = cast(Channel, await self._dialer.dial(lambda: Channel(self)))
        except (OSError, TimeoutError) as error:
            self._connecting = None
            waiting, self._waiting = self._waiting, deque()
            for exchange, number in waiting:
                if exchange.number == number:
                    try:
                        exchange.unreachable(error)
                    except Exception as bug:
                        exchange.crashed(bug)
            return
        self._connecting = None
        self._dialer.failures = 0
        self._channels.append(channel)
        waiting, self._waiting = self._waiting, deque()
        for exchange, number in waiting:
            if exchange.number == number:
                try:
                    self.carry(exchange)
                except Exception as bug:
                    exchange.crashed(bug)

    def lost(self, channel: "Channel") -> None:
        """A connection ended, or takes no more streams."""
        if channel in self._channels:
            self._channels.remove(channel)

    def retire(self) -> None:
        """Close connections that carry nothing, the others after their last stream."""
        self.usable = False
        for channel in list(self._channels):
            channel.retire()


class Channel(Http2Protocol["OriginStream"]):
    """One connection."""

    def __init__(self, link: Link) -> None:
        settings = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        super().__init__(asyncio.get_running_loop().call_soon, settings, client=True)
        self._link = link
        self._turns: Turns | None = None
        self._leaving = False

    def room(self) -> bool:
        """Whether one more stream may be started."""
        allowed = min(MAX_STREAMS, self.codec.connection.remote_settings.max_concurrent_streams)
        return not self._leaving and not self.transport.is_closing() and len(self.streams) < allowed

    def start(self, exchange: Request) -> None:
        """Send a request."""
        self._turns = exchange.app.turns
        OriginStream(self, exchange).start()

    @contained
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flush()

    @contained
    def connection_lost(self, error: Exception | None) -> None:
        self.codec.ended = True
        self._end("it closed the connection")

    def _end(self, why: str) -> None:
        """No more comes on any stream."""
        self._leaving = True
        self._link.lost(self)
        self._lose_all(why)

    @contained
    def pause_writing(self) -> None:
        self.stuck = True

    @contained
    def resume_writing(self) -> None:
        self.stuck = False
        self.window(0)
        self.flush()

    @contained
    def data_received(self, data: bytes) -> None:
        self.codec.feed(data)
        if self._waits:
            return
        if self._turns is None:
            self.codec.work(FOREVER)
            self.flush()
        elif self._turns.run(self._work):
            self._waits = True
            self.transport.pause_reading()

    def _work(self, until: float) -> bool:
        more = self.codec.work(until)
        self.flush()
        if not more and self._waits:
            self._waits = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return more

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

    # --- see h2_codec.Owner

    def began(self, stream: int, fields: Fields, done: bool, size: int) -> None:
        made = self.streams.get(stream)
        if made is not None:
            made.answered(fields, done, size)

    def leaving(self, last: int) -> None:
        """RFC 9113 §6.8: streams above the last one were not looked at, so they may be sent again."""
        self.retire()
        for stream in [each for each in self.streams.values() if each.id > last]:
            self.streams.pop(stream.id, None)
            stream.broken("it goes away", unsent=True)
        if not self.streams:
            self.transport.close()

    def failed(self, text: str) -> None:
        self.flush()
        self.transport.close()
        self._end(f"it broke HTTP/2: {text}")

    def _lost(self, stream: "OriginStream", reason: str, *, unsent: bool = False) -> None:
        stream.broken(reason, unsent=unsent)


class OriginStream:
    """One exchange's part of a connection; see `interfaces.UpstreamConnection`."""

    __slots__ = ("_body_sent", "_channel", "_exchange", "_held", "_left", "_paused", "_started", "id", "outbox")

    def __init__(self, channel: Channel, exchange: Request) -> None:
        self.id = 0
        self._channel = channel
        self._exchange: Request | None = exchange
        self._held = 0
        self._left = -1
        """Bytes of the answer's body that are still to come, where its head says how many there are."""
        self._paused = False
        self._started = False
        self._body_sent = False

    def start(self) -> None:
        """Send the head and what there is of the body."""
        exchange, channel = self._exchange, self._channel
        assert exchange is not None
        exchange.origin = self
        head = exchange.head
        fields = [
            (b":method", head.method), (b":scheme", b"http"), (b":authority", head.authority), (b":path", head.target)
        ]  # fmt: skip
        lines = exchange.outgoing.partition(b"\r\n")[2]
        fields += [(n, v) for n, v in ((n.lower(), v) for n, v in split(lines)) if n not in NOT_IN_HTTP2]
        empty = exchange.body_done and not exchange.pending and not exchange.trailers
        try:
            self.id = channel.codec.request(fields, empty)
        except h2.exceptions.ProtocolError as error:
            channel.retire()
            self.broken(f"the request cannot be said in HTTP/2: {error}", unsent=False)
            return
        channel.streams[self.id] = self
        self.outbox = Outbox(channel, self.id, self._full, self._free, self._sent)
        channel.flush_soon()
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
        self._stop(ErrorCodes.CANCEL)

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

    def _stop(self, code: ErrorCodes) -> None:
        """Neither send nor take any more."""
        self.outbox.drop()
        self._acknowledge()
        self._channel.codec.reset(self.id, code)
        self._channel.flush_soon()
        self._channel.forget(self)

    def _acknowledge(self) -> None:
        held, self._held = self._held, 0
        if held:
            self._channel.codec.acknowledge(held, self.id)

    # --- what the instance sends

    def answered(self, fields: Fields, done: bool, size: int) -> None:
        """A head came; of an answer, or a 1xx. Args: size: of the header list, in bytes."""
        exchange = self._exchange
        if exchange is None:
            return
        head = response_head(fields) if size <= MAX_HEADER_LIST else None
        if head is None:
            long = f"the head of its answer is longer than {MAX_HEADER_LIST} bytes"
            self._refuse(long if size > MAX_HEADER_LIST else "the head of its answer cannot be read")
            return
        if head.status < 200:
            if head.status == 101:
                self._refuse("it changed the protocol, which HTTP/2 cannot")
            else:
                self._channel.codec.budget.spend(1)
                exchange.interim(head)
            return
        self._channel.codec.budget.earn(ANSWERED)
        self._started = True
        if exchange.head.is_head or head.status in (204, 304):
            self._left = 0
        elif head.length >= 0:
            self._left = head.length
        if done:
            if self._left > 0:
                self._refuse("its answer is not as long as it says")
                return
            self._end()
        exchange.answer(head, b"", done)

    def take(self, data: bytes, size: int, done: bool) -> None:
        """Part of the answer's body came."""
        self._held += size
        if not self._paused:
            self._acknowledge()
        exchange = self._exchange
        if exchange is None:
            return
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0 or (done and self._left):
                self._refuse("its answer is not as long as it says")
                return
        if done:
            self._end()
            exchange.more(data, True)
        elif data:
            exchange.more(data, False)

    def take_trailers(self, lines: bytes) -> None:
        """Trailer fields came, and the end with them."""
        exchange = self._exchange
        if exchange is None:
            return
        if self._left > 0:
            self._refuse("its answer is not as long as it says")
            return
        self._end()
        exchange.more(b"", True, lines)

    def _end(self) -> None:
        """The answer is whole."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.origin = None
        if self._body_sent:
            self._acknowledge()
            self._channel.forget(self)
        else:
            self._stop(ErrorCodes.NO_ERROR)

    def _refuse(self, why: str) -> None:
        """What came cannot be passed on."""
        exchange, self._exchange = self._exchange, None
        self._stop(ErrorCodes.PROTOCOL_ERROR)
        if exchange is not None:
            exchange.broken(why, reused=False)

    def broken(self, why: str, unsent: bool) -> None:
        """The stream or its connection is gone."""
        exchange, self._exchange = self._exchange, None
        self._acknowledge()
        if exchange is not None:
            exchange.broken(why, reused=False, unsent=unsent)
