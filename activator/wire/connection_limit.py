"""How many connections one address may have at once, so that no client takes all of them."""

import resource

from activator.wire.forwarding import Proxies

_PART = 4
"""No address has more than the fourth part of the files that this process may open: each request holds two."""


def bounded(most: int) -> int:
    """A bound of connections of one address that this process can keep. Args: most: what is configured; 0: none."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(most, files // _PART) if most else 0


class ConnectionLimiter:
    """Open connections by the address they come from."""

    def __init__(self, most: int = 0) -> None:
        """Args: most: connections of one address; 0 is no bound. Addresses of trusted proxies have none."""
        self.most = most
        self.proxies = Proxies()
        self._counts: dict[bytes, int] = {}

    def enter(self, address: bytes) -> bool:
        """Count a connection in; says whether it may stay. One that may not is not counted."""
        count = self._counts.get(address, 0)
        if 0 < self.most <= count and not self.proxies.trusts(address):
            return False
        self._counts[address] = count + 1
        return True

    def leave(self, address: bytes) -> None:
        """Count one out that was counted in."""
        count = self._counts.get(address, 0)
        if count > 1:
            self._counts[address] = count - 1
        else:
            self._counts.pop(address, None)
