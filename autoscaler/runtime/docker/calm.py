"""Delays work that is not urgent while instances are being started."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_SECONDS = 0.3
"""Pause after the last start: the app that was started is still booting."""


class Calm:
    """Tracks whether an instance is being started, or was started a moment ago."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._quiet_seconds = quiet_seconds
        self._starting = 0
        self._since = float("-inf")
        """When the last start ended, on the loop's clock."""
        self._changed = asyncio.Event()

    @contextmanager
    def start(self) -> Iterator[None]:
        """A start lasts as long as the block."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            self._since = asyncio.get_running_loop().time()
            self._changed.set()

    async def wait(self) -> None:
        """Wait until no instance is being started and the last start was a while ago."""
        loop = asyncio.get_running_loop()
        while self._starting or loop.time() - self._since < self._quiet_seconds:
            self._changed.clear()
            pause = None if self._starting else self._since + self._quiet_seconds - loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
