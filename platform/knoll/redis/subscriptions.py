"""Channels of Redis: all subscriptions of a process on one connection of their own.

Not on the connection of the commands: Redis ends a connection with subscriptions when a large reply waits on it
(`client-output-buffer-limit pubsub`). A subscription does not survive its connection, because messages were missed: it
raises, and its reader subscribes again.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from knoll.redis.connection import RedisConnection, packed
from knoll.values.errors import StoreUnavailableError

OpenConnection = Callable[[Callable[[Sequence[Any]], None]], Awaitable[RedisConnection]]
Message = tuple[str, bytes]
"""Channel and content."""


class Subscription:
    """Messages of some channels from now on."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._lost = False

    async def next(self, seconds: float | None = None) -> Message | None:
        """Wait for the next message; None if there is none within `seconds`.

        Raises: StoreUnavailableError: the connection was lost.
        """
        if not self._messages and not self._lost:
            self._arrived.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        if self._messages:
            return self._messages.popleft()
        raise StoreUnavailableError("Redis is unavailable: the connection of a subscription was lost")

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._arrived.set()

    def end(self) -> None:
        self._lost = True
        self._arrived.set()


class Subscriptions:
    """All subscriptions of a client."""

    def __init__(self, open_connection: OpenConnection) -> None:
        """Args: open_connection: connects; is given what to call with each message."""
        self._open = open_connection
        self._connection: RedisConnection | None = None
        self._connecting = asyncio.Lock()
        self._by_channel: defaultdict[bytes, set[Subscription]] = defaultdict(set)

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[Subscription]:
        """Subscribe; everything that is published from the beginning of the block on is received.

        Raises: StoreUnavailableError, StoreForbiddenError.
        """
        connection = await self._connected()
        subscription = Subscription()
        names = [channel.encode() for channel in channels]
        for name in names:
            self._by_channel[name].add(subscription)
        try:
            # Also those that another subscription has: Redis confirms them again.
            await asyncio.gather(*(connection.submit(packed("SUBSCRIBE", name)) for name in names))
            yield subscription
        finally:
            for name in names:
                self._leave(connection, name, subscription)

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.end("the client was closed")
            await self._connection.lost

    async def _connected(self) -> RedisConnection:
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._open(self._received)
                self._connection.lost.add_done_callback(lambda _: self._end_all())
            return self._connection

    def _received(self, push: Sequence[Any]) -> None:
        kind, channel, content = push[0], push[1], push[2]
        if kind == b"message":
            for subscription in self._by_channel.get(channel, ()):
                subscription.put((channel.decode(), content))

    def _leave(self, connection: RedisConnection, name: bytes, subscription: Subscription) -> None:
        subscribers = self._by_channel[name]
        subscribers.discard(subscription)
        if not subscribers:
            del self._by_channel[name]
            if connection.is_open:
                connection.submit(packed("UNSUBSCRIBE", name)).cancel()  # its reply is of no interest

    def _end_all(self) -> None:
        for subscribers in self._by_channel.values():
            for subscription in subscribers:
                subscription.end()
