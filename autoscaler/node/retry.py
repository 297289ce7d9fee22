"""Calling what may be away for a while."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.values.errors import KnollError

log = structlog.get_logger()
T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Call until it works: Redis or the engine may be away."""
    backoff = Backoff()
    while True:
        try:
            return await call()
        except KnollError as error:
            log.warning("waiting", error=str(error))
            await backoff.wait()
