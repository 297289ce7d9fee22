"""Idle and new HTTP/1.1 connections to one address: an instance, or the relay of another node."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from activator.backend.http1_upstream import Http1Upstream
from activator.interfaces import ProxiedRequest

MAX_CONNECTING = 64
"""Concurrent connection attempts to one address; its listen backlog is limited."""
MAX_IDLE = 1024
"""Idle connections that are kept."""


class Http1ConnectionPool:
    """Connections; implements `http1_upstream.Http1Pool`. Subclasses implement `dial`."""

    __slots__ = ("_connecting", "_tasks", "failures", "idle", "retired", "waiting")

    def __init__(self) -> None:
        self.failures = 0
        """Consecutive refused connections."""
        self.retired = False
        self.idle: list[Http1Upstream] = []
        self.waiting: deque[tuple[ProxiedRequest, int]] = deque()
        self._connecting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def dial(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        """Connect. Raises: OSError or TimeoutError."""
        raise NotImplementedError

    def new_connection(self) -> Http1Upstream:
        """Return the protocol of a new connection."""
        return Http1Upstream(self)

    def enqueue(self, exchange: ProxiedRequest) -> None:
        """Send a request over a new connection."""
        if self._connecting >= MAX_CONNECTING:
            self.waiting.append((exchange, exchange.generation))
        else:
            self._open_connection(exchange, exchange.generation)

    def _open_connection(self, exchange: ProxiedRequest, generation: int) -> None:
        self._connecting += 1
        task = asyncio.get_running_loop().create_task(self._connect(exchange, generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, exchange: ProxiedRequest, generation: int) -> None:
        try:
            connection = await self.dial(self.new_connection)
        except (OSError, TimeoutError) as error:
            self._connecting -= 1
            self._connect_next()
            if exchange.generation == generation:
                try:
                    exchange.connection_refused(error)
                except Exception as bug:
                    exchange.internal_error(bug)
            return
        self._connecting -= 1
        self.failures = 0
        if exchange.generation == generation:
            try:
                connection.start(exchange)
            except Exception as bug:
                exchange.internal_error(bug)
            self._connect_next()
        else:
            self.return_connection(connection)

    def _connect_next(self) -> None:
        while self.waiting and self._connecting < MAX_CONNECTING:
            exchange, generation = self.waiting.popleft()
            if exchange.generation == generation:
                self._open_connection(exchange, generation)

    def return_connection(self, connection: Http1Upstream) -> None:
        """Reuse a connection for a waiting request, keep it idle, or close it."""
        while self.waiting:
            exchange, generation = self.waiting.popleft()
            if exchange.generation == generation:
                connection.start(exchange)
                return
        if self.retired or len(self.idle) >= MAX_IDLE:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self.idle.append(connection)

    def retire(self) -> None:
        """Take no more requests: close idle connections. Requests in flight continue."""
        self.retired = True
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        stale = [o for o in self.idle if now - o.idle_since > o.keep_alive_seconds]
        if stale:
            self.idle = [o for o in self.idle if now - o.idle_since <= o.keep_alive_seconds]
            for connection in stale:
                connection.close()
