"""One connection to Redis, on which commands are pipelined.

A command is sent at the end of the event loop's turn, with all others of that turn, and does not wait for the replies
of earlier ones: Redis then reads, carries out and writes through all of them at once. Replies come in the order of the
commands. A caller that was cancelled leaves its place in that order: its reply is dropped when it comes.

The protocol is RESP3, which distinguishes messages of channels from replies: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from knoll.redis.address import Address, tls_context
from knoll.redis.reply_errors import translated
from knoll.values.errors import StoreUnavailableError

Argument = str | bytes | int | float
Reply = Any
"""What Redis replies: bytes, integers, None, and lists, sets and dictionaries of them."""

CONNECT_SECONDS = 2.0
RESPONSE_SECONDS = 10.0
"""How long Redis may reply nothing while a command waits."""
_RECHECK_SECONDS = 0.02
"""A busy event loop gets to a timer before it gets to a reply that came long ago: the timer looks again after this."""
_INCOMPLETE = object()
_CONFIRMATIONS = (b"subscribe", b"unsubscribe")


def packed(*command: Argument) -> bytes:
    """Return a command as it is sent."""
    return hiredis.pack_command(command)  # type: ignore[no-any-return, arg-type]


class RedisConnection(asyncio.Protocol):
    """See the module. Made by `open_connection`."""

    def __init__(
        self, address: Address, response_seconds: float, on_push: Callable[[Sequence[Any]], None] | None = None
    ) -> None:
        self._address, self._response_seconds, self._on_push = address, response_seconds, on_push
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._pending: deque[asyncio.Future[Reply]] = deque()
        self._unsent: list[bytes] = []
        self._heard_at = 0.0
        """When Redis last replied, or when the oldest command was sent after a time without any."""
        self._timer: asyncio.TimerHandle | None = None
        self._reason = "the connection is not open"
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done once the connection has ended."""

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def submit(self, command: bytes) -> "asyncio.Future[Reply]":
        """Send a command; returns its reply to come, which may be cancelled.

        The future raises what `reply_errors` names, and StoreUnavailableError once the connection is lost: whether the
        command was carried out is unknown then.
        """
        if self._transport is None:
            raise self._unavailable()
        reply: asyncio.Future[Reply] = self._loop.create_future()
        if not self._pending:
            self._heard_at = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(self._response_seconds, self._check)
        self._pending.append(reply)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(command)
        return reply

    def end(self, reason: str) -> None:
        """End the connection at once; commands without a reply fail with the reason."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()
        self._forget()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._take(reply)
        except hiredis.ProtocolError as error:
            self.end(f"its reply cannot be read: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._reason = f"the connection was lost: {error}" if error else "it closed the connection"
        self._forget()
        if not self.lost.done():
            self.lost.set_result(None)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if reply[0] not in _CONFIRMATIONS:
                if self._on_push is not None:
                    self._on_push(reply)
                return
            # SUBSCRIBE has no other reply than this one, in its place in the order.
            reply = None
        if not self._pending:
            self.end("it replied to no command")
            return
        waiting = self._pending.popleft()
        if waiting.done():  # its caller was cancelled
            return
        if isinstance(reply, hiredis.ReplyError):
            waiting.set_exception(translated(str(reply)))
        else:
            waiting.set_result(reply)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _check(self, again: bool = False) -> None:
        self._timer = None
        if not self._pending:
            return
        left = self._heard_at + self._response_seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        elif not again:
            self._timer = self._loop.call_later(_RECHECK_SECONDS, self._check, True)
        else:
            self.end("Timeout reading a reply")

    def _forget(self) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, deque()
        for waiting in pending:
            if not waiting.done():
                waiting.set_exception(self._unavailable())

    def _unavailable(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"Redis is unavailable: {self._reason} ({self._address})")


async def open_connection(
    address: Address,
    name: str,
    *,
    connect_seconds: float = CONNECT_SECONDS,
    response_seconds: float = RESPONSE_SECONDS,
    on_push: Callable[[Sequence[Any]], None] | None = None,
) -> RedisConnection:
    """Connect and log in.

    Args:
        name: shown by `CLIENT LIST`; no spaces.
        connect_seconds: how long connecting and logging in may take.
        response_seconds: how long Redis may reply nothing while a command waits.
        on_push: called with each message of a channel.

    Raises: StoreUnavailableError, also when Redis refuses the user.
    """
    loop = asyncio.get_running_loop()
    connection = RedisConnection(address, response_seconds, on_push)
    try:
        async with asyncio.timeout(connect_seconds):
            if address.path:
                await loop.create_unix_connection(lambda: connection, address.path)
            else:
                context = None if address.tls is None else tls_context(address.tls)
                transport, _ = await loop.create_connection(lambda: connection, address.host, address.port, ssl=context)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            greeting = [connection.submit(packed("HELLO", 3, *address.login(), "SETNAME", name))]
            if address.database:
                greeting.append(connection.submit(packed("SELECT", address.database)))
            await asyncio.gather(*greeting)
    except TimeoutError:
        connection.end("Timeout connecting")
        raise StoreUnavailableError(f"Redis is unavailable: Timeout connecting to {address}") from None
    except (OSError, ValueError) as error:
        raise StoreUnavailableError(f"Redis is unavailable: cannot connect to {address}: {error}") from error
    except BaseException:
        connection.end("logging in failed")
        raise
    return connection
