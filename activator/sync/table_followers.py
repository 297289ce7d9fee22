"""Follows the tables in Redis, and acknowledges each version once requests are routed by it."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog

from activator.routing.proxy_state import ProxyState
from activator.sync.dns_hosts import HostsFiles
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.routing import RouteEntry
from knoll.process.settings import ActivatorSettings
from knoll.tables.protocol import FieldChange, Reset, Table
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()

HEARTBEAT_SECONDS = 2.0
"""Below half of `FOLLOWER_TTL`. On the wall clock, so that the followers of a process send theirs together."""
LATE_SECONDS = 0.005
"""Delay, so that a timer that fires a little early still fires after its due time."""
RETRY_SECONDS = 0.25


class TableFollower:
    """Follows one table."""

    def __init__(
        self,
        table: Table[Any],
        name: str,
        replace: Callable[[dict[str, Any]], None],
        change: Callable[[str, Any], None],
    ) -> None:
        """
        Args:
            name: of this worker among the followers.
            replace: called with a whole table.
            change: called with a field and its value; None if it was removed.
        """
        self._table = table
        self._name = name
        self._replace = replace
        self._change = change
        self._version: int | None = None
        self._changed = asyncio.Event()
        self.synced = asyncio.Event()
        """Set once the table was read."""

    async def run(self) -> None:
        """Run until cancelled; then unregister, so that no process waits for its acknowledgement."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._acknowledge())
        finally:
            with contextlib.suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._table.leave(self._name)

    async def _follow(self) -> None:
        async for event in self._table.follow():
            match event:
                case Reset():
                    self._replace(event.entries)
                case FieldChange():
                    self._change(event.field, event.value)
            self._version = event.version
            self.synced.set()
            self._changed.set()

    async def _acknowledge(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS - time.time() % HEARTBEAT_SECONDS + LATE_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            if self._version is None:
                continue
            try:
                await self._table.acknowledge(self._name, self._version)
            except (StoreUnavailableError, StoreForbiddenError) as error:
                log.debug("acknowledgement not sent", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                self._changed.set()


def followers(
    proxy: ProxyState, routing: Table[RouteEntry], endpoints: Table[RevisionEndpoints]
) -> list[TableFollower]:
    """Return the followers of both tables."""
    return [
        TableFollower(routing, proxy.name, proxy.replace_routes, proxy.change_route),
        TableFollower(endpoints, proxy.name, proxy.replace_endpoints, proxy.change_endpoints),
    ]


def dns_hosts_follower(settings: ActivatorSettings, routing: Table[RouteEntry]) -> TableFollower | None:
    """Return the follower that writes hosts files; None if they are disabled.

    It acknowledges like the others, so the names of a Route that is Ready resolve.
    """
    if settings.names_dir is None:
        return None
    files = HostsFiles(settings.names_dir, settings.activator_local_host)
    return TableFollower(routing, f"names-{socket.gethostname()}-{os.getpid()}", files.replace, files.change)
