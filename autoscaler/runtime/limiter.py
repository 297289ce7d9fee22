"""How many instances are started at once. The engine works faster with a few than with all of them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def default_limit(cores: int | None) -> int:
    """Starts at once for a machine of that many cores."""
    return max(4, 2 * (cores or 1))


class Limiter:
    """First come, first served."""

    def __init__(self, limit: int | None = None) -> None:
        self._slots = asyncio.Semaphore(limit or default_limit(os.cpu_count()))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        async with self._slots:
            yield
