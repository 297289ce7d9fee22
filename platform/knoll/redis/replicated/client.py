"""The client of a primary with replicas; see `knoll.redis.replicated`.

Its guarantees beyond those of `RedisClient`:

- A write that succeeded is on the primary and on as many replicas as the URL says. One that raised may have happened.
- Once sentinels have promoted another server, which takes them a short time, the previous primary is neither written
  nor read.
- `epoch` changes with each promotion; every write of this client after the change belongs to the new epoch.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import structlog

from knoll.redis import keys
from knoll.redis.address import Address
from knoll.redis.connection import RESPONSE_SECONDS, Argument, RedisConnection, Reply, open_connection, packed
from knoll.redis.fence import FENCE
from knoll.redis.replicated.discovery import Primary, Replication
from knoll.redis.replicated.scripts import BEGIN_EPOCH, RAISE, additions, epoch_form
from knoll.redis.replicated.sentinels import Sentinels
from knoll.redis.replicated.session import INFO, Session, answer_seconds, problem_of
from knoll.redis.reply_errors import NotPrimaryError, UnknownScriptError
from knoll.redis.single_client import RedisClient, Script, all_replies, result_of
from knoll.redis.streams import GATHER_SECONDS
from knoll.values.errors import KnollError, StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()

_form = cache(epoch_form)


class ReplicatedClient(RedisClient):
    """See the module's docstring."""

    is_replicated = True

    def __init__(self, where: Address, name: str, gather_seconds: float = GATHER_SECONDS) -> None:
        super().__init__(where, name, gather_seconds)
        self._session: Session | None = None
        self._epoch_changed = asyncio.Event()
        self._sentinels = Sentinels(where, name, self._primary, self._warned)

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
        await self._sentinels.aclose()
        await super().aclose()
        if self._session is not None:
            self._session.end("the client was closed")

    async def _current_session(self) -> Session:
        await self._connected()
        session = self._session
        assert session is not None
        return session

    async def _open_commands(self) -> RedisConnection:
        self._sentinels.follow()
        warnings = self._sentinels.warnings
        primary = await self._sentinels.find()
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
            if self.where.sentinels and (await self._sentinels.find()).place != primary.place:
                raise StoreUnavailableError("Redis is unavailable: sentinels name another primary than a moment ago")
            epoch = replication.replication_id
            await _begin_epoch(commands, epoch)
            if self._sentinels.warnings != warnings:
                raise StoreUnavailableError("Redis is unavailable: sentinels replace its primary")
        except BaseException:
            commands.end("it is not the primary")
            raise
        address = dataclasses.replace(address, replicas=replication.required(address))
        self._begin(Session(address, epoch, commands, primary))
        return commands

    def _primary(self) -> Primary | None:
        return None if self._session is None else self._session.primary

    def _warned(self, reason: str) -> None:
        if self._session is not None:
            self._session.end(reason)

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
