"""Which connections the API holds: so many from one address, so many in all. Pure but for closing them.

A connection on which no request is being answered makes room for a new one, the one that has waited longest first: half
a head holds no place against a client that sends a whole one. Only where all are at work is a new one over the bound;
it is then asked nothing but how the API is (`HEALTH`).
"""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Protocol

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""Paths that are answered whatever else the API has to do."""
MAX_OVER = 128
"""Connections over the bound that are kept for their question; the oldest goes first."""


class Connection(Protocol):
    """What is held."""

    def abort(self) -> None:
        """Close it at once."""


class Connections:
    """All connections of one process."""

    def __init__(self, total: int, per_address: Callable[[], int]) -> None:
        """
        Args:
            total: most connections that are held.
            per_address: gives the most that one address may have.
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
        """Hold a new connection, on which a request is waited for.

        Args: address: of the client; empty where there is none.

        Returns: False when it is over the bound.
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
        """No request is being answered on it."""
        group = self._address_of.get(connection)
        if group is not None:
            self._waiting.setdefault(group, OrderedDict())[connection] = None
            self._all_waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """A request is being answered on it."""
        group = self._address_of.get(connection)
        if group is not None and connection in self._all_waiting:
            del self._all_waiting[connection]
            waiting = self._waiting[group]
            del waiting[connection]
            if not waiting:
                del self._waiting[group]

    def remove(self, connection: Connection) -> None:
        """It is closed."""
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
    """What is counted as one address: an IPv4 address, or the /64 network of an IPv6 one, which one client can fill."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return address
