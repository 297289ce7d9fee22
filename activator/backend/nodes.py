"""The other nodes of the platform: connections to their relays, and their instances as endpoints."""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable
from typing import Any

from activator.backend.endpoint import Dialer, UpstreamEndpoint, UpstreamPool
from activator.backend.http1_pool import Http1ConnectionPool
from activator.backend.http1_upstream import Http1Upstream
from activator.backend.relay_upstream import RelayUpstream, SlotFree
from activator.interfaces import ProxiedRequest
from activator.wire.relay_lines import Mode, request_line
from knoll.auth.node_identity import node_name
from knoll.messages.nodes import Node

CONNECT_SECONDS = 5.0
"""Time for a connection with its TLS handshake."""
LOST_SECONDS = 4
"""A machine that acknowledges nothing for this long is considered lost: a machine without power sends no reset."""

_tickets = itertools.count(1)


def prepare(transport: asyncio.BaseTransport) -> None:
    """Set socket options: send small writes at once, and end the connection when the other machine is lost."""
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, 1),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, LOST_SECONDS - 1),
        (socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class NodeRelay(Http1ConnectionPool):
    """Connections to one node, for requests to any of its instances."""

    __slots__ = ("_context", "_slot_free", "node")

    def __init__(self, node: Node, context: Callable[[], ssl.SSLContext | None], slot_free: SlotFree) -> None:
        """Args: context: returns the TLS context with the certificate of this node; None before it has one."""
        super().__init__()
        self.node = node
        self._context = context
        self._slot_free = slot_free

    def new_connection(self) -> Http1Upstream:
        return RelayUpstream(self, self._slot_free)

    async def dial(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        node, context = self.node, self._context()
        if context is None:
            raise OSError("this node has no certificate yet")
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, protocol = await asyncio.get_running_loop().create_connection(
                factory, node.address, node.relay_port, ssl=context, server_hostname=node.name
            )
            assert isinstance(protocol, RelayUpstream)
            try:
                ready = await protocol.ready
            except asyncio.CancelledError:
                transport.abort()
                raise
        if not ready or transport.is_closing():  # it may drain already
            raise OSError(f"the node {node.name} ended the connection")
        if node_name(transport.get_extra_info("peercert")) != node.name:
            transport.abort()
            raise OSError(f"{node.address}:{node.relay_port} has a certificate that is not for the node {node.name}")
        prepare(transport)
        return protocol

    def forward(self, exchange: ProxiedRequest, fresh: bool) -> None:
        """Send a request that has a slot. Args: fresh: use a new connection."""
        idle = self.idle
        if idle and not fresh:
            idle.pop().start(exchange)
        else:
            self.enqueue(exchange)


class RemoteEndpoint(UpstreamEndpoint):
    """An instance of another node.

    Only the slots that this worker uses are counted here; the other node decides whether one is free.
    """

    __slots__ = ("_nodes", "lines")

    def __init__(self, nodes: "Nodes", revision: str, id_: str, node: str, limit: int) -> None:
        super().__init__(id_, "", 0, limit, _no_http2)
        self._nodes = nodes
        self.node = node
        self.lines = (request_line(revision, id_, Mode.NOW), request_line(revision, id_, Mode.HELD))

    @property
    def reachable(self) -> bool:
        return self._nodes.relay(self.node) is not None

    def forward(self, exchange: ProxiedRequest, fresh: bool = False) -> None:
        if exchange.ticket[0] != exchange.generation:
            # Requests are admitted in order of arrival, so those that come back are queued in this order.
            exchange.ticket = (exchange.generation, next(_tickets))
        relay = self._nodes.relay(self.node)
        if relay is None:
            exchange.connection_refused(OSError(f"the node {self.node} is not available"))
        else:
            relay.forward(exchange, fresh)


def _no_http2(_: Dialer) -> UpstreamPool:
    raise AssertionError("requests between nodes use HTTP/1.1")


class Nodes:
    """The other nodes in the table of nodes, and the connections to each of them."""

    def __init__(self, slot_free: SlotFree, changed: Callable[[], None]) -> None:
        """Args: changed: called when the set of reachable nodes changes."""
        self.name = ""
        """Name of this node; empty on a single machine."""
        self.context: ssl.SSLContext | None = None
        """TLS context with the certificate of this node; None before it has one."""
        self.members: set[str] = set()
        """Names of the nodes in the table. Requests of others are not accepted, even with a valid certificate."""
        self._slot_free = slot_free
        self._changed = changed
        self._relays: dict[str, NodeRelay] = {}

    def remote(self, name: str) -> str:
        """Return the name, or an empty string if it is that of this node."""
        return "" if name == self.name else name

    def relay(self, name: str) -> NodeRelay | None:
        """Return the connections to a node; None while it is not in the table."""
        return self._relays.get(name)

    def change(self, name: str, node: Node | None) -> None:
        """Set one entry; None removes it."""
        if node is not None:
            self.members.add(name)
            self._set(node)
        else:
            self.members.discard(name)
            if name in self._relays:
                self._relays.pop(name).retire()
        self._changed()

    def _set(self, node: Node) -> None:
        before = self._relays.get(node.name)
        if before is not None and (before.node.address, before.node.relay_port) == (node.address, node.relay_port):
            return
        if before is not None:
            self._relays.pop(node.name).retire()
        if node.relay_port and node.name != self.name:
            self._relays[node.name] = NodeRelay(node, lambda: self.context, self._slot_free)

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        for relay in self._relays.values():
            relay.sweep(now)

    def retire(self) -> None:
        """Close idle connections."""
        for relay in self._relays.values():
            relay.retire()
