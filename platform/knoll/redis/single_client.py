"""The client of one Redis, and the scripts that it carries out.

Commands of a process share one connection and do not wait for one another; streams and channels have one each. RQ has
its own client (`knoll.builds.blocking_redis`).

No command is ever retried: a write whose reply was lost may have happened, and only the caller knows what that means.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from knoll.redis import address
from knoll.redis.connection import RESPONSE_SECONDS, Argument, RedisConnection, Reply, open_connection, packed
from knoll.redis.reply_errors import UnknownScriptError, translated
from knoll.redis.streams import GATHER_SECONDS, PROMPT_GATHER_SECONDS, SILENCE_SECONDS, StreamMultiplexer
from knoll.redis.subscriptions import Subscription, Subscriptions
from knoll.values.errors import KnollError


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. Its text is sent once to each Redis, afterwards only its hash."""

    text: str
    writes: bool = False
    """Whether it writes: where Redis has replicas, they must have the writes before it is acknowledged."""
    counter: int = 0
    """Which of its KEYS, counted from 1, is a counter of versions; 0 for none. It jumps when the primary changes."""
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class RedisClient:
    """One Redis. Connects when it is first used, and again after a connection was lost.

    Calls raise StoreUnavailableError while Redis is unavailable (the command may have been executed), StoreFullError
    when it refuses writes, StoreForbiddenError when its user may not do this, and RedisReplyError for bugs.
    """

    is_replicated = False
    """Whether another server may become the primary: then writes wait for replicas, and `epoch` is not empty."""
    epoch = ""
    """Identifies the primary; changes when another server is promoted. Always empty with a single Redis."""

    def __init__(self, where: address.Address, name: str, gather_seconds: float = GATHER_SECONDS) -> None:
        """See `connect`."""
        self.where, self.name = where, name
        self._connection: RedisConnection | None = None
        self._opening: asyncio.Task[RedisConnection] | None = None
        self._subscriptions = Subscriptions(lambda on_push: self._open(on_push=on_push))
        open_streams = partial(self._open, response_seconds=SILENCE_SECONDS + RESPONSE_SECONDS)
        self.streams = StreamMultiplexer(open_streams, gather_seconds)
        self.prompt_streams = StreamMultiplexer(open_streams, PROMPT_GATHER_SECONDS)
        """For streams whose every entry matters at once; on a connection of their own."""

    async def execute(self, *command: Argument) -> Reply:
        """Execute a command."""
        return await self._submit(packed(*command))

    async def run(self, script: Script, names: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Execute a script. Args: names: its KEYS. args: its ARGV."""
        command = _call(script, names, args)
        try:
            return await self._submit(command)
        except UnknownScriptError:
            connection = await self._connected()
            loaded, reply = connection.submit(packed("SCRIPT", "LOAD", script.text)), connection.submit(command)
            return (await all_replies([loaded, reply]))[1]

    async def run_all(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]]
    ) -> list[Reply | KnollError]:
        """Execute a script several times in order, in one round trip; a failure does not stop the others.

        Args: calls: KEYS and ARGV of each.

        Returns: the reply or the error of each.
        """
        try:
            connection = await self._connected()
            sent = [connection.submit(_call(script, names, args)) for names, args in calls]
        except KnollError as error:
            return [type(error)(*error.args) for _ in calls]  # a traceback grows each time its exception is raised
        replies = await asyncio.gather(*sent, return_exceptions=True)
        for at, reply in enumerate(replies):
            if isinstance(reply, UnknownScriptError):
                replies[at] = await result_of(self.run(script, *calls[at]))
            elif isinstance(reply, BaseException) and not isinstance(reply, KnollError):
                raise reply
        return replies

    async def pipeline(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Execute commands in order; commands of others may come in between. Raises the first error."""
        connection = await self._connected()
        return await all_replies([connection.submit(packed(*command)) for command in commands])

    async def transaction(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Execute commands with MULTI and EXEC. Raises the first error; the other commands may have been executed."""
        connection = await self._connected()
        sent = [connection.submit(packed(*command)) for command in (("MULTI",), *commands, ("EXEC",))]
        replies = await all_replies(sent)
        for reply in replies[-1]:
            if isinstance(reply, Exception):  # an error within a list is not raised
                raise translated(str(reply))
        return list(replies[-1])

    async def write(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Execute commands that write; where Redis has replicas, they must have the writes. See `pipeline`."""
        return await self.pipeline(*commands)

    async def raise_counter(self, counter: str) -> None:
        """Raise a counter above every version that a lost primary can have assigned. A single Redis needs no raise."""

    async def epoch_ended(self, epoch: str, seconds: float) -> bool:
        """Wait until the epoch changes, for at most `seconds`; return whether it has changed."""
        await asyncio.sleep(seconds)
        return False

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe to channels while the block runs; see `Subscriptions.subscribe`."""
        return self._subscriptions.subscribe(*channels)

    async def aclose(self) -> None:
        """Close all connections. A later command opens one again."""
        if self._opening is not None:
            self._opening.cancel()
        await self.streams.aclose()
        await self.prompt_streams.aclose()
        await self._subscriptions.aclose()
        if self._connection is not None:
            self._connection.end("the client was closed")
            await self._connection.lost

    async def _submit(self, command: bytes) -> Reply:
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        return await connection.submit(command)

    async def _connected(self) -> RedisConnection:
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_commands(), name="redis connection")
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except KnollError as error:  # all callers share this error object, and each raises a copy
            raise type(error)(*error.args) from error

    def _opened(self, opening: "asyncio.Task[RedisConnection]") -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._connection = opening.result()

    async def _open_commands(self) -> RedisConnection:
        return await self._open()

    async def _open(
        self,
        *,
        response_seconds: float = RESPONSE_SECONDS,
        on_push: Callable[[Sequence[Any]], None] | None = None,
    ) -> RedisConnection:
        return await open_connection(self.where, self.name, response_seconds=response_seconds, on_push=on_push)


def _call(script: Script, names: Sequence[str], args: Sequence[Argument]) -> bytes:
    return packed("EVALSHA", script.sha, len(names), *names, *args)


async def result_of(call: Awaitable[Reply]) -> Reply | KnollError:
    """Return the reply or the error of a call."""
    try:
        return await call
    except KnollError as error:
        return error


async def all_replies(replies: Sequence["asyncio.Future[Reply]"]) -> list[Reply]:
    """Wait for all replies. Raises the first error."""
    results = await asyncio.gather(*replies, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
