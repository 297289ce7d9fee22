"""Limits the open connections of each address and of the API. Pure, except that it closes connections.

A connection without a request in progress is closed for a new one, the longest idle first, so that clients that send
half a request cannot keep others out. A new connection is over the limit only if all others are busy; it may then
request nothing but the health of the API (`HEALTH`).
"""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Protocol

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""Paths that are served even to connections over the limit."""
MAX_OVER = 128
"""Connections over the limit that stay open for a health request; the oldest is closed first."""


class Connection(Protocol):
    """An open connection."""

    def abort(self) -> None:
        """Close it at once."""


class Connections:
    """All connections of one process."""

    def __init__(self, total: int, per_address: Callable[[], int]) -> None:
        """
        Args:
            total: limit of all connections.
            per_address: returns the limit of one address.
        """
        self._total = total
        self._per_address = per_address
        self._address_of: dict[Connection, str] = {}
        self._waiting: dict[str, OrderedDict[Connection, None]] = {}
        self._all_waiting: OrderedDict[Connection, None] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._over: OrderedDict[Connection, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._address_of)

    def add(self, connection: Connection, address: str) -> bool:
        """Add a new connection, which is waiting for a request.

        Args: address: of the client; empty if it has none.

        Returns: False if it is over the limit.
        """
        group = group_of(address)
        if self._counts.get(group, 0) >= self._per_address():
            self._drop_oldest(self._waiting.get(group))
        elif len(self._address_of) >= self._total:
            self._drop_oldest(self._all_waiting)
        if self._counts.get(group, 0) >= self._per_address() or len(self._address_of) >= self._total:
            if len(self._over) >= MAX_OVER:
                self._over.popitem(last=False)[0].abort()
            self._over[connection] = None
            return False
        self._address_of[connection] = group
        self._counts[group] = self._counts.get(group, 0) + 1
        self.waits(connection)
        return True

    def waits(self, connection: Connection) -> None:
        """Called when a connection has no request in progress."""
        group = self._address_of.get(connection)
        if group is not None:
            self._waiting.setdefault(group, OrderedDict())[connection] = None
            self._all_waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """Called when a connection has a request in progress."""
        group = self._address_of.get(connection)
        if group is not None and connection in self._all_waiting:
            del self._all_waiting[connection]
            waiting = self._waiting[group]
            del waiting[connection]
            if not waiting:
                del self._waiting[group]

    def remove(self, connection: Connection) -> None:
        """Called when a connection was closed."""
        self._over.pop(connection, None)
        self.works(connection)
        group = self._address_of.pop(connection, None)
        if group is not None:
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]

    def _drop_oldest(self, waiting: OrderedDict[Connection, None] | None) -> None:
        if waiting:
            oldest = next(iter(waiting))
            self.remove(oldest)
            oldest.abort()


def group_of(address: str) -> str:
    """The unit that is limited: an IPv4 address, or the /64 network of an IPv6 address, which one client may own."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return address
