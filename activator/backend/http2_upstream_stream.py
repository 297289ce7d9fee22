"""One request on an HTTP/2 connection to an instance."""

from typing import Protocol

import h2.exceptions
from h2.errors import ErrorCodes

from activator.interfaces import Request
from activator.wire.http1_parser import split
from activator.wire.http2_codec import ANSWERED, MAX_HEADER_LIST, Codec
from activator.wire.http2_fields import NOT_IN_HTTP2, Fields, response_head
from activator.wire.http2_flow import Outbox


class StreamConnection(Protocol):
    """The connection, as a stream sees it."""

    codec: Codec
    stuck: bool
    unwritten: int
    streams: "dict[int, UpstreamStream]"

    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def forget(self, stream: "UpstreamStream") -> None: ...
    def retire(self) -> None: ...


class UpstreamStream:
    """One exchange's part of a connection; see `interfaces.UpstreamConnection`."""

    __slots__ = ("_body_sent", "_channel", "_exchange", "_held", "_left", "_paused", "_started", "id", "outbox")

    def __init__(self, channel: StreamConnection, exchange: Request) -> None:
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
