"""Receives the reports and pokes of activators, over Redis channels that keep nothing."""

from collections.abc import Callable

import msgspec
import structlog

from knoll.concurrency.backoff import Backoff
from knoll.messages.reports import Poke, Report
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()


class ReportSubscriber:
    """Reports and pokes of all activators."""

    def __init__(
        self,
        redis: RedisClient,
        *,
        on_poke: Callable[[Poke], None],
        on_report: Callable[[Report], None],
        on_listening: Callable[[bool], object],
    ) -> None:
        """
        Args:
            on_listening: called with True when it begins to receive everything, with False when it may miss messages.
        """
        self._redis, self._on_poke, self._on_report, self._on_listening = redis, on_poke, on_report, on_listening

    async def run(self) -> None:
        """Receive forever, with gaps while Redis is unavailable."""
        backoff = Backoff()
        while True:
            try:
                async with self._redis.subscribe(keys.REPORTS, keys.POKES) as channel:
                    self._on_listening(True)
                    backoff.reset()
                    while True:
                        message = await channel.next()
                        if message is not None:
                            self._receive(*message)
            except StoreUnavailableError:
                self._on_listening(False)
                await backoff.wait()

    def _receive(self, channel: str, data: bytes) -> None:
        try:
            if channel == keys.POKES:
                self._on_poke(msgspec.json.decode(data, type=Poke))
            else:
                self._on_report(msgspec.json.decode(data, type=Report))
        except msgspec.MsgspecError as error:
            log.warning("message not readable", channel=channel, error=str(error))
