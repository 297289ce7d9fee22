"""Sends reports and pokes to the autoscaler. A message that Redis does not accept is lost; the next report follows."""

import asyncio
import time

import msgspec
import structlog

from activator.routing.proxy_state import ProxyState
from knoll.messages.reports import Poke
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

LATE_SECONDS = 0.005
"""Delay after the start of a period, so that a timer that fires a little early still fires within it."""


class Reporter:
    """Publishes a report each period, and pokes at once."""

    def __init__(self, proxy: ProxyState, redis: RedisClient, period: float) -> None:
        """Args: period: seconds between two reports."""
        self._proxy = proxy
        self._redis = redis
        self._period = period
        self._pokes: dict[str, Poke] = {}
        self._poked = asyncio.Event()
        proxy.send_poke = self._poke

    def _poke(self, poke: Poke) -> None:
        self._pokes[poke.revision] = poke
        self._poked.set()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report())
            tasks.create_task(self._send_pokes())

    async def _report(self) -> None:
        while True:
            await self._proxy.until_tracked()
            await asyncio.sleep(until_next(time.time(), self._period))
            report = self._proxy.report(time.time())
            if report is not None:
                await self._publish(keys.REPORTS, msgspec.json.encode(report))

    async def _send_pokes(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            pokes, self._pokes = self._pokes, {}
            for poke in pokes.values():
                await self._publish(keys.POKES, msgspec.json.encode(poke))

    async def _publish(self, channel: str, message: bytes) -> None:
        try:
            await self._redis.execute("PUBLISH", channel, message)
        except StoreUnavailableError as error:
            log.debug("report not sent", channel=channel, error=str(error))


def until_next(now: float, period: float) -> float:
    """Return the seconds until the next report.

    All activators report at multiples of the period on the wall clock, so that their means cover the same time and can
    be added. After a late report the next one is on time again, but covers at least half a period.
    """
    wait = period - now % period + LATE_SECONDS
    return wait if wait >= period / 2 else wait + period
