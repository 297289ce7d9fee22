"""Waiting until every living activator acts on a version of the routing table, without asking again and again."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from knoll.messages.routing import RouteEntry
from knoll.tables.protocol import Table
from knoll.values.errors import KnollError

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""How often to look while something is waited for: an activator that died sends no word of it."""


class Acknowledgements:
    """Tells when an entry is acknowledged. Looks when an activator says something, and only while entries wait."""

    def __init__(self, routing: Table[RouteEntry], reached: Callable[[str, int], None]) -> None:
        """Args: reached: told path and version once every living activator (at least one) acknowledged it."""
        self._routing = routing
        self._reached = reached
        self._waiting: dict[str, int] = {}
        self._look = asyncio.Event()
        self.living = 0
        """Activators at the last look."""

    def expect(self, path: str, version: int) -> None:
        """Wait for an entry's version; a newer one takes an older one's place."""
        if self._waiting.get(path) != version:
            self._waiting[path] = version
            self._look.set()

    def forget(self, path: str) -> None:
        self._waiting.pop(path, None)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._watch())

    async def look(self) -> None:
        """Compare what is waited for with what is acknowledged."""
        # What is expected after the question was asked cannot be answered by it.
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
        async for _ in self._routing.acknowledgements():
            if self._waiting:
                self._look.set()

    async def _watch(self) -> None:
        while True:
            if self._waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._look.wait()
            else:
                await self._look.wait()
            self._look.clear()
            try:
                await self.look()
            except KnollError as error:
                log.warning("followers of the routing table cannot be read", error=str(error))
