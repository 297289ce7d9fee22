"""Retrying calls to services that may be unavailable for a while."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.values.errors import KnollError

log = structlog.get_logger()
T = TypeVar("T")


async def until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Call until it succeeds: Redis or the engine may be unavailable."""
    backoff = Backoff()
    while True:
        try:
            return await call()
        except KnollError as error:
            log.warning("service unavailable, retrying", error=str(error))
            await backoff.wait()
