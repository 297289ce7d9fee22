"""Retries with increasing pauses; not used on the data path."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from knoll.values.errors import KnollError

log = structlog.get_logger()
T = TypeVar("T")

PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds; short, because most retries wait for a Redis that restarts."""


class Backoff:
    """Pauses that increase with each consecutive failure; the last one repeats."""

    def __init__(self, pauses: Sequence[float] = PAUSES) -> None:
        """
        Args:
            pauses: seconds, at least one.
        """
        self._pauses = pauses
        self.failures = 0
        """Consecutive failures."""

    def next_pause(self) -> float:
        """Count a failure, and return the seconds to wait before the next attempt."""
        pause = self._pauses[min(self.failures, len(self._pauses) - 1)]
        self.failures += 1
        return pause

    async def wait(self) -> None:
        """Count a failure, and sleep before the next attempt."""
        await asyncio.sleep(self.next_pause())

    def reset(self) -> None:
        """Start again with the shortest pause: an attempt succeeded."""
        self.failures = 0


async def until_available(
    call: Callable[[], Awaitable[T]],
    event: str = "service unavailable, retrying",
    errors: tuple[type[Exception], ...] = (KnollError,),
    **fields: object,
) -> T:
    """Call until it succeeds: Redis or the engine may be unavailable.

    Args:
        call: makes one attempt.
        event: logged with each failure.
        errors: those after which the call is retried; others are raised.
        fields: logged with the event.
    """
    backoff = Backoff()
    while True:
        try:
            return await call()
        except errors as error:
            log.warning(event, error=str(error), **fields)
            await backoff.wait()
