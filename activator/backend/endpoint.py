"""An endpoint: the slots of an instance and its HTTP/1.1 connections."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from activator.backend.http1_pool import Http1ConnectionPool
from activator.interfaces import ProxiedRequest
from knoll.messages.endpoints import StartTiming

CONNECT_SECONDS = 2.0
LOAD_SECONDS = 0.1
"""Another node that sends requests to an instance is told at most this often how many it has."""


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


class UpstreamEndpoint(Http1ConnectionPool):
    """An endpoint with its slots and its connections.

    Slots and connections are one object, because taking a slot and a connection are the two calls that every request
    makes here.
    """

    __slots__ = (
        "_load_reported", "_new_http2_pool", "busy", "draining", "h2c", "host", "http2_pool", "id", "in_flight",
        "limit", "node", "others", "port", "relayed", "suspended", "timing", "tunnels",
    )  # fmt: skip

    def __init__(self, id_: str, host: str, port: int, limit: int, new_http2_pool: PoolFactory) -> None:
        """
        Args:
            limit: limit of concurrent requests; 0 is no limit.
            http2_pool: makes the pool of HTTP/2 connections, at the first request to an instance that speaks h2c.
        """
        super().__init__()
        self.id = id_
        self.node = ""
        """Name of the other node that runs it (`nodes.RemoteEndpoint`); empty for this node."""
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
        self.relayed = 0
        """Requests among them that other nodes sent; those nodes report them."""
        self.others = 0
        """Requests that other nodes sent to an instance of another node; see `nodes.RemoteEndpoint`."""
        self.timing: StartTiming | None = None
        self.draining = False
        self.suspended = False
        """Whether it recently refused a connection."""
        self.busy = False
        """Whether its node recently had no free slot; always False for instances of this node."""
        self.http2_pool: UpstreamPool | None = None
        self._load_reported: dict[str, float] = {}
        """When each other node was last sent the number of requests."""

    @property
    def reachable(self) -> bool:
        """Whether requests can be sent to it now."""
        return True

    @property
    def failed(self) -> bool:
        """Whether its node did not respond lately; always False for instances of this node."""
        return False

    def take_slot(self) -> bool:
        """See `load_balancer.EndpointCandidate`."""
        if self.limit and self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    def release_slot(self) -> None:
        """Release the slot of a request."""
        self.in_flight -= 1

    def load_reported(self, requests: int) -> None:
        raise AssertionError("only instances of other nodes are reported")

    def load_is_due(self, node: str, now: float) -> bool:
        """Return whether another node, which sent a request, is to be told `in_flight`, by which it divides requests.

        Without a limit only: with one, it is told when no slot is free.
        """
        if self.limit or now - self._load_reported.get(node, -LOAD_SECONDS) < LOAD_SECONDS:
            return False
        self._load_reported[node] = now
        return True

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
        self.enqueue(exchange)

    def _forward_http2(self, exchange: ProxiedRequest) -> None:
        if self.http2_pool is None or not self.http2_pool.usable:
            self.http2_pool = self._new_http2_pool(self)
        self.http2_pool.forward(exchange)

    async def dial(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        """Connect. Raises: OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            return (await loop.create_connection(factory, self.host, self.port))[1]

    def retire(self) -> None:
        super().retire()
        if self.http2_pool is not None:
            self.http2_pool.retire()
