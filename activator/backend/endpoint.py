"""An endpoint: the slots of an instance and its HTTP/1.1 connections."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from activator.backend.http1_upstream import Http1Upstream
from activator.interfaces import ProxiedRequest
from knoll.messages.endpoints import StartTiming

CONNECT_SECONDS = 2.0
MAX_CONNECTING = 64
"""Concurrent connection attempts to one instance; its listen backlog is limited."""
MAX_IDLE = 1024
"""Idle connections kept for one instance."""


class Dialer(Protocol):
    """Makes connections to one instance."""

    failures: int
    """Consecutive refused connections."""

    async def dial(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        """Connect. Raises: OSError or TimeoutError."""
        ...


class UpstreamPool(Protocol):
    """HTTP/2 connections to one instance."""

    usable: bool
    """Whether it takes more requests."""

    def forward(self, exchange: ProxiedRequest) -> None:
        """Send a request that has a slot."""
        ...

    def retire(self) -> None:
        """Close each connection after its last stream."""
        ...


PoolFactory = Callable[[Dialer], UpstreamPool]


class UpstreamEndpoint:
    """An endpoint with its slots and its connections.

    Slots and connections are one object, because taking a slot and a connection are the two calls that every request
    makes here.
    """

    __slots__ = (
        "_connecting", "_new_http2_pool", "_tasks", "draining", "failures", "h2c", "host", "http2_pool", "id", "idle",
        "in_flight", "limit", "port", "retired", "suspended", "timing", "tunnels", "waiting",
    )  # fmt: skip

    def __init__(self, id_: str, host: str, port: int, limit: int, new_http2_pool: PoolFactory) -> None:
        """
        Args:
            limit: limit of concurrent requests; 0 is no limit.
            http2_pool: makes the pool of HTTP/2 connections, at the first request to an instance that speaks h2c.
        """
        self.id = id_
        self.host = host
        self.port = port
        self.limit = limit
        self.h2c = False
        """Whether it is sent HTTP/2, without an upgrade."""
        self._new_http2_pool = new_http2_pool
        self.in_flight = 0
        """Requests in the instance, tunnels included."""
        self.tunnels = 0
        """Upgraded connections among them."""
        self.timing: StartTiming | None = None
        self.draining = False
        self.retired = False
        self.suspended = False
        self.failures = 0
        self.idle: list[Http1Upstream] = []
        self.http2_pool: UpstreamPool | None = None
        self._connecting = 0
        self.waiting: deque[tuple[ProxiedRequest, int]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def take_slot(self) -> bool:
        """See `load_balancer.EndpointCandidate`."""
        if self.limit and self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    def release_slot(self) -> None:
        """Release the slot of a request."""
        self.in_flight -= 1

    def forward(self, exchange: ProxiedRequest, fresh: bool = False) -> None:
        """Send a request that has a slot here, over an idle connection if there is one.

        Args:
            fresh: over a new connection only.
        """
        if self.h2c:
            self._forward_http2(exchange)
            return
        idle = self.idle
        if idle and not fresh:
            idle.pop().start(exchange)
            return
        self._enqueue(exchange)

    def _enqueue(self, exchange: ProxiedRequest) -> None:
        if self._connecting >= MAX_CONNECTING:
            self.waiting.append((exchange, exchange.generation))
        else:
            self._open_connection(exchange, exchange.generation)

    def _forward_http2(self, exchange: ProxiedRequest) -> None:
        if self.http2_pool is None or not self.http2_pool.usable:
            self.http2_pool = self._new_http2_pool(self)
        self.http2_pool.forward(exchange)

    def _open_connection(self, exchange: ProxiedRequest, generation: int) -> None:
        self._connecting += 1
        task = asyncio.get_running_loop().create_task(self._connect(exchange, generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, exchange: ProxiedRequest, generation: int) -> None:
        try:
            connection = await self.dial(lambda: Http1Upstream(self))
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

    async def dial(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        """Connect. Raises: OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            return (await loop.create_connection(factory, self.host, self.port))[1]

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
        if self.http2_pool is not None:
            self.http2_pool.retire()

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        stale = [o for o in self.idle if now - o.idle_since > o.keep_alive_seconds]
        if stale:
            self.idle = [o for o in self.idle if now - o.idle_since <= o.keep_alive_seconds]
            for connection in stale:
                connection.close()
