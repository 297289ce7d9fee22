"""The client of a primary with replicas; see `knoll.redis.replicated`.

Its guarantees beyond those of `RedisClient`:

- A write that succeeded is on the primary and on as many replicas as the URL says. One that raised may have happened.
- Once sentinels have promoted another server, which takes them a short time, the previous primary is neither written
  nor read.
- `epoch` changes with each promotion; every write of this client after the change belongs to the new epoch.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.redis import keys
from knoll.redis.address import Address
from knoll.redis.connection import RESPONSE_SECONDS, Argument, RedisConnection, Reply, open_connection, packed
from knoll.redis.fence import FENCE
from knoll.redis.replicated.discovery import Primary, Replication, find_primary, open_sentinel
from knoll.redis.replicated.scripts import BEGIN_EPOCH, RAISE, additions, epoch_form
from knoll.redis.replicated.session import INFO, Session, answer_seconds, problem_of
from knoll.redis.reply_errors import NotPrimaryError, RedisReplyError, UnknownScriptError
from knoll.redis.single_client import RedisClient, Script, all_replies, result_of
from knoll.redis.streams import GATHER_SECONDS
from knoll.values.errors import KnollError, StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()

_SWITCHED, _PROMOTED, _DOWN, _VOTED = "+switch-master", "+promoted-slave", "+odown", "+vote-for-leader"
"""Channels of a sentinel: the primary has changed; this sentinel promoted a replica; a quorum considers the primary to
be down; this sentinel voted for the one that is to replace a primary."""
VOTE_SECONDS = 10.0
"""An election of sentinels that has not led to another primary after this time has failed."""
_form = cache(epoch_form)


class ReplicatedClient(RedisClient):
    """See the module's docstring."""

    is_replicated = True

    def __init__(self, where: Address, name: str, gather_seconds: float = GATHER_SECONDS) -> None:
        super().__init__(where, name, gather_seconds)
        self._session: Session | None = None
        self._epoch_changed = asyncio.Event()
        self._listening: list[asyncio.Task[None]] = []
        self._vote, self._voted_at = 0, float("-inf")
        """The configuration epoch of a sentinel's last vote, and the time of the vote on the loop's clock."""
        self._warnings = 0
        """How many messages of sentinels would have ended a session."""

    async def run(self, script: Script, names: Sequence[str], args: Sequence[Argument]) -> Reply:
        if not script.writes:
            return await super().run(script, names, args)
        session = await self._current_session()
        writes = await session.writes(self.name)
        fence = FENCE.get()
        if fence is not None and fence.epoch != session.epoch:
            raise StoreUnavailableError("Redis is unavailable: another server became the primary, leadership ends")
        form = _form(script)
        more_keys, more_args = additions(script, names, session.epoch, fence)
        count = len(names) + len(more_keys)
        command = packed("EVALSHA", form.sha, count, *names, *more_keys, *args, *more_args)
        try:
            try:
                return await writes.submit(command)
            except UnknownScriptError:
                loaded, reply = writes.submit(packed("SCRIPT", "LOAD", form.text)), writes.submit(command)
                return (await all_replies([loaded, reply]))[1]
        except NotPrimaryError as error:
            session.end(str(error))
            raise

    async def run_all(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]]
    ) -> list[Reply | KnollError]:
        if not script.writes:
            return await super().run_all(script, calls)
        # Those of one iteration of the event loop are one batch.
        return list(await asyncio.gather(*(result_of(self.run(script, *call)) for call in calls)))

    async def write(self, *commands: Sequence[Argument]) -> list[Reply]:
        session = await self._current_session()
        writes = await session.writes(self.name)
        try:
            return await all_replies([writes.submit(packed(*command)) for command in commands])
        except NotPrimaryError as error:
            session.end(str(error))
            raise

    async def raise_counter(self, counter: str) -> None:
        await self.run(RAISE, [counter], [])

    async def epoch_ended(self, epoch: str, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.epoch == epoch:
                    await self._epoch_changed.wait()
        return self.epoch != epoch

    async def aclose(self) -> None:
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        self._listening = []
        await super().aclose()
        if self._session is not None:
            self._session.end("the client was closed")

    async def _current_session(self) -> Session:
        await self._connected()
        session = self._session
        assert session is not None
        return session

    async def _open_commands(self) -> RedisConnection:
        if not self._listening:
            self._listening = [asyncio.create_task(self._listen(each)) for each in self.where.sentinels]
        warnings = self._warnings
        primary = await self._find()
        address = self.where.at(primary.host, primary.port)
        commands = await open_connection(
            address,
            self.name,
            connect_seconds=primary.connect_seconds,
            response_seconds=answer_seconds(primary.down_after),
        )
        try:
            replication = Replication.parse(await commands.submit(INFO))
            if problem := problem_of(replication, address, ""):
                raise StoreUnavailableError(f"Redis is unavailable: {problem}")
            # Ask again after the server has answered: sentinels may have started to replace it meanwhile.
            if self.where.sentinels and (await self._find()).place != primary.place:
                raise StoreUnavailableError("Redis is unavailable: sentinels name another primary than a moment ago")
            epoch = replication.replication_id
            await _begin_epoch(commands, epoch)
            if self._warnings != warnings:
                raise StoreUnavailableError("Redis is unavailable: sentinels replace its primary")
        except BaseException:
            commands.end("it is not the primary")
            raise
        self._begin(Session(address, epoch, commands, primary))
        return commands

    async def _find(self) -> Primary:
        primary = await find_primary(self.where, self.name)
        is_recent = asyncio.get_running_loop().time() - self._voted_at < VOTE_SECONDS
        if is_recent and primary.configuration < self._vote:
            raise StoreUnavailableError(f"Redis is unavailable: sentinels replace {primary.host}:{primary.port}")
        return primary

    def _begin(self, session: Session) -> None:
        before, self._session = self._session, session
        if before is not None:
            before.end("another server is the primary")
        if session.epoch != self.epoch:
            if self.epoch:
                log.warning("redis primary changed", server=str(session.address), epoch=session.epoch)
            self.epoch = session.epoch
            self._epoch_changed.set()
            self._epoch_changed = asyncio.Event()

    async def _open(
        self,
        *,
        response_seconds: float = RESPONSE_SECONDS,
        on_push: Callable[[Sequence[Any]], None] | None = None,
    ) -> RedisConnection:
        """Open a connection for streams or channels to the session's primary."""
        session = await self._current_session()
        connection = await open_connection(
            session.address,
            self.name,
            connect_seconds=session.primary.connect_seconds,
            response_seconds=response_seconds,
            on_push=on_push,
        )
        session.attach(connection)
        return connection

    async def _listen(self, sentinel: Address) -> None:
        """End the session as soon as a sentinel names another primary."""
        backoff = Backoff()
        while True:
            try:
                connection = await open_sentinel(sentinel, self.name, on_push=self._heard)
                try:
                    for channel in (_SWITCHED, _PROMOTED, _DOWN, _VOTED):
                        await connection.submit(packed("SUBSCRIBE", channel))
                    backoff.reset()
                    await asyncio.shield(connection.lost)
                finally:
                    connection.end("it is not needed")
            except StoreUnavailableError:
                pass
            except (KnollError, RedisReplyError) as error:
                # Without its messages, a replaced primary is noticed only by polling.
                log.warning("sentinel not followed", sentinel=str(sentinel), error=str(error))
            await backoff.wait()

    def _heard(self, push: Sequence[Any]) -> None:
        channel, message = push[1].decode(), push[2].decode()
        if channel == _VOTED:
            self._vote, self._voted_at = int(message.split()[-1]), asyncio.get_running_loop().time()
        session = self._session
        if reason := warning(self.where.primary_name, channel, message, session.primary if session else None):
            self._warnings += 1
            if session is not None:
                session.end(reason)


def warning(primary_name: str, channel: str, message: str, current: Primary | None) -> str:
    """Return why a session with a primary ends after a message of a sentinel; empty if it does not.

    Args: current: None while no session is open.
    """
    if channel == _VOTED:
        # The message does not name the primary: if sentinels watch several, an election interrupts the clients of all.
        is_newer = current is None or current.configuration < int(message.split()[-1])
        return "sentinels elect another primary" if is_newer else ""
    if channel == _DOWN:
        return "sentinels consider the primary to be down" if message.split()[1:2] == [primary_name] else ""
    primary = named_by(primary_name, channel, message)
    if primary is None or (current is not None and current.place == primary.place):
        return ""
    return f"sentinels named {primary.host}:{primary.port} the primary"


def named_by(primary_name: str, channel: str, message: str) -> Primary | None:
    """Return the new primary in a message of a sentinel; None when it is about something else.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#pubsub-messages
    """
    fields = message.split()
    if channel == _SWITCHED and len(fields) == 5 and fields[0] == primary_name:
        return Primary(fields[3], int(fields[4]))
    # slave NAME HOST PORT @ PRIMARY HOST PORT
    if channel == _PROMOTED and len(fields) == 8 and fields[5] == primary_name:
        return Primary(fields[2], int(fields[3]))
    return None


async def _begin_epoch(connection: RedisConnection, replication_id: str) -> None:
    """Make sure that the epoch of this primary is stored. Raises: StoreUnavailableError."""
    stored: bytes | None = await connection.submit(packed("GET", keys.EPOCH))
    if (stored or b"").startswith(replication_id.encode()):
        return
    try:
        load = connection.submit(packed("SCRIPT", "LOAD", BEGIN_EPOCH.text))
        begin = connection.submit(packed("EVALSHA", BEGIN_EPOCH.sha, 1, keys.EPOCH, replication_id))
        await all_replies([load, begin])
    except StoreForbiddenError as error:
        raise StoreUnavailableError("Redis is unavailable: no process has begun the epoch of its primary") from error
