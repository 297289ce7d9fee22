"""Waits until every live activator has acknowledged a version of the routing table."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from knoll.messages.routing import RouteEntry
from knoll.tables.protocol import Table
from knoll.values.errors import KnollError

log = structlog.get_logger()

CHECK_SECONDS = 1.0
"""Interval of checks while an entry waits, in seconds: a dead activator does not report that it left."""


class Acknowledgements:
    """Reports when an entry is acknowledged. Checks when an activator acknowledges, and only while entries wait."""

    def __init__(self, routing: Table[RouteEntry], reached: Callable[[str, int], None]) -> None:
        """Args: reached: called with path and version once every live activator, at least one, has acknowledged it."""
        self._routing = routing
        self._reached = reached
        self._waiting: dict[str, int] = {}
        self._look = asyncio.Event()
        self._newest_reported = 0
        """The newest version that any activator has reported."""
        self.living = 0
        """Activators at the last check."""

    def expect(self, path: str, version: int) -> None:
        """Wait for a version of an entry; replaces an older version."""
        if self._waiting.get(path) != version:
            self._waiting[path] = version
            self._look.set()

    def forget(self, path: str) -> None:
        self._waiting.pop(path, None)

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._watch())

    async def check(self) -> None:
        """Compare the waiting entries with the acknowledged versions."""
        # The response does not cover versions that are added while it is on its way.
        asked = dict(self._waiting)
        followers = await self._routing.followers()
        self.living = len(followers)
        if not followers:
            return
        oldest = min(followers.values())
        for path, version in asked.items():
            if version <= oldest and self._waiting.get(path) == version:
                del self._waiting[path]
                self._reached(path, version)

    async def _listen(self) -> None:
        async for _, version in self._routing.acknowledgements():
            self._newest_reported = max(self._newest_reported, version)
            if self._waiting:
                self._look.set()

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + CHECK_SECONDS
        while True:
            if not self._waiting:
                await self._look.wait()
                due = clock() + CHECK_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._look.wait()
            self._look.clear()
            if clock() < due and min(self._waiting.values(), default=0) > self._newest_reported:
                # No activator has reported a version that is awaited: they need some milliseconds for a new entry.
                continue
            try:
                await self.check()
            except KnollError as error:
                log.warning("acknowledgements not read", error=str(error))
            due = clock() + CHECK_SECONDS
