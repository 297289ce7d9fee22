"""Follows what sentinels announce: the use of a primary ends before another server has replaced it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.redis.address import Address
from knoll.redis.connection import packed
from knoll.redis.replicated.discovery import Primary, find_primary, open_sentinel
from knoll.redis.reply_errors import RedisReplyError
from knoll.values.errors import KnollError, StoreUnavailableError

log = structlog.get_logger()

_SWITCHED, _PROMOTED, _DOWN, _VOTED = "+switch-master", "+promoted-slave", "+odown", "+vote-for-leader"
"""Channels of a sentinel: the primary has changed; this sentinel promoted a replica; a quorum considers the primary to
be down; this sentinel voted for the one that is to replace a primary."""
VOTE_SECONDS = 10.0
"""An election of sentinels that has not led to another primary after this time has failed."""


class Sentinels:
    """The sentinels of one primary."""

    def __init__(
        self, where: Address, name: str, current: Callable[[], Primary | None], warned: Callable[[str], None]
    ) -> None:
        """
        Args:
            where: with sentinels, or without: then nothing is followed.
            name: of the connections, shown by `CLIENT LIST`.
            current: returns the primary in use; None while there is none.
            warned: called with the reason why the primary in use must not be used any longer.
        """
        self._where, self._name, self._current, self._warned = where, name, current, warned
        self._listening: list[asyncio.Task[None]] = []
        self._vote, self._voted_at = 0, float("-inf")
        """The configuration epoch of a sentinel's last vote, and the time of the vote on the loop's clock."""
        self.warnings = 0
        """How many messages would have ended the use of a primary."""

    def follow(self) -> None:
        """Listen to all sentinels, until `aclose`. Further calls have no effect."""
        if not self._listening:
            self._listening = [asyncio.create_task(self._listen(each)) for each in self._where.sentinels]

    async def aclose(self) -> None:
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        self._listening = []

    async def find(self) -> Primary:
        """Return the primary. Raises: StoreUnavailableError: none is named, or it is about to be replaced."""
        primary = await find_primary(self._where, self._name)
        is_recent = asyncio.get_running_loop().time() - self._voted_at < VOTE_SECONDS
        if is_recent and primary.configuration < self._vote:
            raise StoreUnavailableError(f"Redis is unavailable: sentinels replace {primary.host}:{primary.port}")
        return primary

    async def _listen(self, sentinel: Address) -> None:
        backoff = Backoff()
        while True:
            try:
                connection = await open_sentinel(sentinel, self._name, on_push=self._heard)
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
        if reason := warning(self._where.primary_name, channel, message, self._current()):
            self.warnings += 1
            self._warned(reason)


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
