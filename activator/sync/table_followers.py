"""Keeps the gateway's tables as Redis has them, and says so: a version is acknowledged once requests go by it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import structlog

from activator.routing.proxy_state import ProxyState
from activator.sync.dns_hosts import HostsFiles
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.routing import RouteEntry
from knoll.process.settings import ActivatorSettings
from knoll.tables.protocol import Change, Reset, Table
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

HEARTBEAT_SECONDS = 1.0


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
            replace: takes over a whole table.
            change: takes over one field, None when it is gone.
        """
        self._table = table
        self._name = name
        self._replace = replace
        self._change = change
        self._version: int | None = None
        self._moved = asyncio.Event()
        self.synced = asyncio.Event()
        """Set once the table was read."""

    async def run(self) -> None:
        """For ever; at the end, says that this follower need not be waited for."""
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
                case Change():
                    self._change(event.field, event.value)
            self._version = event.version
            self.synced.set()
            self._moved.set()

    async def _acknowledge(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), HEARTBEAT_SECONDS)
            self._moved.clear()
            if self._version is None:
                continue
            try:
                await self._table.acknowledge(self._name, self._version)
            except StoreUnavailableError as error:
                log.debug("acknowledgement lost", error=str(error))
                await asyncio.sleep(HEARTBEAT_SECONDS / 4)
                self._moved.set()


def followers(
    proxy: ProxyState, routing: Table[RouteEntry], endpoints: Table[RevisionEndpoints]
) -> list[TableFollower]:
    """The followers of both tables."""
    return [
        TableFollower(routing, proxy.name, proxy.replace_routes, proxy.change_route),
        TableFollower(endpoints, proxy.name, proxy.replace_endpoints, proxy.change_endpoints),
    ]


def dns_hosts_follower(settings: ActivatorSettings, routing: Table[RouteEntry]) -> TableFollower | None:
    """The one that keeps the files of cluster-local names; None when nobody wants them.

    It acknowledges like the others: a Route that is Ready has its names.
    """
    if settings.names_dir is None:
        return None
    files = HostsFiles(settings.names_dir, settings.activator_local_host)
    return TableFollower(routing, f"names-{socket.gethostname()}-{os.getpid()}", files.replace, files.change)
