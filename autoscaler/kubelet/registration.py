"""Keeps this node's entry in the table of nodes, and its heartbeat."""

import asyncio
from collections.abc import Callable

import structlog

from knoll.messages.nodes import Node
from knoll.redis.heartbeats import DEAD_SECONDS, INTERVAL_SECONDS, Heartbeats
from knoll.tables.protocol import Table
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()


class NodeRegistration:
    """This node's registration with the platform."""

    def __init__(self, heartbeats: Heartbeats, nodes: Table[Node], entry: Callable[[], Node]) -> None:
        """Args: entry: returns the present entry of this node."""
        self._heartbeats, self._nodes, self._entry = heartbeats, nodes, entry
        self._written: Node | None = None
        self._since = float("inf")

    def is_steady(self) -> bool:
        """Return whether every heartbeat of the last DEAD_SECONDS reached Redis.

        If so, missing heartbeats of another node are not caused by this process or its connection.
        """
        return asyncio.get_running_loop().time() - self._since >= DEAD_SECONDS

    async def run(self) -> None:
        """Send heartbeats until cancelled; none is sent while Redis is unavailable."""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    registered = await self._heartbeats.beat(self._entry().name)
                    entry = self._entry()
                    if not registered or entry != self._written:
                        await self._nodes.put(entry.name, entry)
                        self._written = entry
                        log.info("node registered", node=entry.name)
                self._since = min(self._since, clock())
            except (StoreUnavailableError, TimeoutError):
                self._since = float("inf")
            except StoreForbiddenError as error:
                # During an upgrade, until Redis has the permissions of this version.
                self._since = float("inf")
                log.warning("node not registered yet", error=str(error))
            await asyncio.sleep(INTERVAL_SECONDS)
