"""The other nodes of the platform, and their instances as endpoints."""

import itertools
import ssl
from collections.abc import Callable, Iterable

from activator.backend.endpoint import Dialer, UpstreamEndpoint, UpstreamPool
from activator.backend.node_relay import NodeRelay
from activator.backend.relay_upstream import SlotFree
from activator.interfaces import ProxiedRequest
from activator.wire.relay_lines import Mode, request_line
from knoll.messages.nodes import Node

_tickets = itertools.count(1)


class RemoteEndpoint(UpstreamEndpoint):
    """An instance of another node.

    Only the slots that this worker uses are counted here. The other node decides whether one is free. Without a limit,
    it reports how many requests the instance has; between two reports, only this worker's own count changes.
    """

    __slots__ = ("_nodes", "_reported", "lines")

    def __init__(self, nodes: "Nodes", revision: str, id_: str, node: str, limit: int) -> None:
        super().__init__(id_, "", 0, limit, _no_http2)
        self._nodes = nodes
        self.node = node
        self._reported = False
        """Whether there was a report since the last sweep."""
        self.lines = (request_line(revision, id_, Mode.NOW), request_line(revision, id_, Mode.HELD))

    @property
    def reachable(self) -> bool:
        return self._nodes.relay(self.node) is not None

    @property
    def failed(self) -> bool:
        relay = self._nodes.relay(self.node)
        return relay is None or relay.failed

    def load_reported(self, requests: int) -> None:
        self.others = max(0, requests - self.in_flight)
        self._reported = True

    def sweep(self, now: float) -> None:
        """Let an old report fade: without a request there is no new one, and without doubt there is no request.

        Refused connections are forgotten likewise: a connection that succeeds belongs to the node, not to the instance.
        """
        if not self._reported:
            self.others //= 2
        self._reported = False
        if not self.suspended:
            self.failures //= 2

    def forward(self, exchange: ProxiedRequest, fresh: bool = False) -> None:
        if exchange.ticket[0] != exchange.generation:
            # Requests are admitted in order of arrival, so those that come back are queued in this order.
            exchange.ticket = (exchange.generation, next(_tickets))
        relay = self._nodes.relay(self.node)
        if relay is None:
            exchange.connection_refused(OSError(f"the node {self.node} is not available"))
        else:
            relay.forward(exchange, fresh)


def node_is_busier(endpoints: Iterable[UpstreamEndpoint], node: str, requests: int) -> None:
    """Called when another node sends a request for an instance here that has no limit and so many requests.

    It prefers its own instances, so they have more. Without this, their load would be unknown here until a request was
    sent there, and both nodes would begin by exchanging requests.

    Args: endpoints: those of the revision.
    """
    for endpoint in endpoints:
        if endpoint.node == node and endpoint.in_flight + endpoint.others <= requests:
            endpoint.load_reported(requests)


def _no_http2(_: Dialer) -> UpstreamPool:
    raise AssertionError("requests between nodes use HTTP/1.1")


class Nodes:
    """The other nodes in the table of nodes, and the connections to each of them."""

    def __init__(self, slot_free: SlotFree, changed: Callable[[], None]) -> None:
        """Args: changed: called when a node becomes reachable, fails or responds again."""
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
            self._relays[node.name] = NodeRelay(node, lambda: self.context, self._slot_free, self._changed)

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        for relay in self._relays.values():
            relay.sweep(now)

    def retire(self) -> None:
        """Close idle connections, and take no more requests."""
        for relay in self._relays.values():
            relay.retire()
