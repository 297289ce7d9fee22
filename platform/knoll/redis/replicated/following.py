"""Follows which server is the primary, for a process that forwards connections to it but has no user of its own there.

A primary is given up as early as a client gives up its session: before sentinels can have promoted another server. The
clients check its role, epoch and replicas themselves.
"""

import asyncio
from collections.abc import Callable

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.redis.address import Address
from knoll.redis.connection import RedisConnection, open_connection, packed
from knoll.redis.replicated.discovery import Primary
from knoll.redis.replicated.sentinels import Sentinels
from knoll.redis.replicated.session import answer_seconds, question_seconds
from knoll.redis.reply_errors import RedisReplyError
from knoll.values.errors import KnollError, StoreUnavailableError

log = structlog.get_logger()


class PrimaryFollower:
    """Keeps `primary` up to date while `run` runs."""

    def __init__(
        self,
        where: Address,
        name: str,
        dial: Callable[[Primary], Address],
        changed: Callable[[], None],
    ) -> None:
        """
        Args:
            where: with sentinels.
            name: of the connections, shown by `CLIENT LIST`.
            dial: returns the address at which this process connects to a primary.
            changed: called after each change of `primary`.
        """
        self._name, self._dial, self._changed = name, dial, changed
        self.primary: Primary | None = None
        """The primary; None while there is none, or while another one may be about to replace it."""
        self._connection: RedisConnection | None = None
        self._sentinels = Sentinels(where, name, lambda: self.primary, self._warned)

    async def run(self) -> None:
        """Follow the primary until cancelled."""
        backoff = Backoff()
        try:
            while True:
                self._sentinels.follow()
                try:
                    await self._follow(backoff.reset)
                except (KnollError, RedisReplyError) as error:
                    log.info("primary not followed", error=str(error))
                await backoff.wait()
        finally:
            await self._sentinels.aclose()

    async def _follow(self, began: Callable[[], None]) -> None:
        warnings = self._sentinels.warnings
        primary = await self._sentinels.find()
        self._connection = connection = await open_connection(
            self._dial(primary),
            self._name,
            connect_seconds=primary.connect_seconds,
            response_seconds=answer_seconds(primary.down_after),
        )
        try:
            # Ask again after the server has answered: sentinels may have started to replace it meanwhile.
            if (await self._sentinels.find()).place != primary.place or self._sentinels.warnings != warnings:
                raise StoreUnavailableError("sentinels replace it")
            self._set(primary)
            log.info("primary followed", server=f"{primary.host}:{primary.port}")
            began()
            while True:
                await connection.submit(packed("PING"))
                await asyncio.wait({connection.lost}, timeout=question_seconds(primary.down_after))
        finally:
            self._connection = None
            connection.end("it is not followed")
            self._set(None)

    def _warned(self, reason: str) -> None:
        self._set(None)
        if self._connection is not None:
            self._connection.end(reason)

    def _set(self, primary: Primary | None) -> None:
        if primary != self.primary:
            self.primary = primary
            self._changed()
