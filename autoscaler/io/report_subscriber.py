"""Hears what activators say, over channels that keep nothing."""

from collections.abc import Callable

import msgspec
import structlog
from redis.asyncio import Redis

from knoll.concurrency.backoff import Backoff
from knoll.messages.reports import Poke, Report
from knoll.redis import keys
from knoll.redis.client import UNAVAILABLE_ERRORS

log = structlog.get_logger()


class Listening:
    """Reports and pokes of all activators."""

    def __init__(
        self,
        redis: "Redis",
        *,
        poked: Callable[[Poke], None],
        reported: Callable[[Report], None],
        heard: Callable[[bool], None],
    ) -> None:
        """Args: heard: told True when it begins to hear everything, False when it may miss something."""
        self._redis, self._poked, self._reported, self._heard = redis, poked, reported, heard

    async def run(self) -> None:
        """Listen for ever, with gaps while Redis is away."""
        backoff = Backoff()
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(keys.REPORTS, keys.POKES)
                    self._heard(True)
                    backoff.reset()
                    while True:
                        message = await channel.get_message(timeout=60)
                        if message is not None:
                            self._take(message["channel"].decode(), message["data"])
            except UNAVAILABLE_ERRORS:
                self._heard(False)
                await backoff.wait()

    def _take(self, channel: str, data: bytes) -> None:
        try:
            if channel == keys.POKES:
                self._poked(msgspec.json.decode(data, type=Poke))
            else:
                self._reported(msgspec.json.decode(data, type=Report))
        except msgspec.MsgspecError as error:
            log.warning("a message on a channel is not ours", channel=channel, error=str(error))
