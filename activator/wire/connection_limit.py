"""Limit of connections for each client address, so that no client can take all of them."""

import resource

from activator.wire.forwarding import Proxies

_PART = 4
"""No address gets more than a quarter of the process' file descriptors: each request needs two."""


def bounded(most: int) -> int:
    """Return the limit that this process can enforce. Args: most: the configured limit; 0 is none."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(most, files // _PART) if most else 0


class ConnectionLimiter:
    """Counts open connections by client address."""

    def __init__(self, most: int = 0) -> None:
        """Args: most: connections of one address; 0 is no limit. Trusted proxies have none."""
        self.most = most
        self.proxies = Proxies()
        self._counts: dict[bytes, int] = {}

    def enter(self, address: bytes) -> bool:
        """Count a connection; returns whether it may stay. Otherwise it is not counted."""
        count = self._counts.get(address, 0)
        if 0 < self.most <= count and not self.proxies.trusts(address):
            return False
        self._counts[address] = count + 1
        return True

    def leave(self, address: bytes) -> None:
        """Remove a connection that was counted."""
        count = self._counts.get(address, 0)
        if count > 1:
            self._counts[address] = count - 1
        else:
            self._counts.pop(address, None)
