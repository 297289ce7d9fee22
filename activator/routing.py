"""Hosts to revisions: the followed routing table, compiled for look-ups. Pure but for the draw.

What a Host header says (`Shop.Default.localhost:8080`) is looked up as it came; the first request with a spelling pays
for making it lower case and cutting off its port. 10 000 routes cost a hot request nothing.
"""

import random
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from knoll.traffic import RouteEntry, Share, pick

SPELLINGS = 20_000
"""Spellings of hosts that are remembered; then all are forgotten."""

R = TypeVar("R")


class HostRoute(Generic[R]):
    """Where the requests of one host go."""

    __slots__ = ("_only", "_revisions", "route", "shares", "tags")

    def __init__(self, route: str, shares: tuple[Share, ...], revisions: Mapping[str, R]) -> None:
        """
        Args:
            route: `namespace/name`.
            revisions: at least those that the shares name.
        """
        self.route = route
        self.shares = tuple(share for share in shares if share.percent)
        self.tags: dict[str, HostRoute[R]] = {}
        """Routes of the same Route's tags, for the tag header."""
        self._revisions = [revisions[share.revision] for share in self.shares]
        self._only = self._revisions[0] if len(self._revisions) == 1 else None

    def pick(self) -> R:
        """Draw a revision by weight."""
        if self._only is not None:
            return self._only
        share = pick(self.shares, int(random.random() * 100))  # noqa: S311 - weights, not secrets
        return self._revisions[self.shares.index(share)]


class Routing(Generic[R]):
    """All routes. `replace` and `change` leave a table that is whole at any time."""

    def __init__(self, revision: Callable[[str], R]) -> None:
        """Args: revision: finds or makes the revision of a name."""
        self._revision = revision
        self._entries: dict[str, RouteEntry] = {}
        self._public: dict[str, HostRoute[R]] = {}
        self._local: dict[str, HostRoute[R]] = {}
        self.public: dict[bytes, HostRoute[R]] = {}
        """Spellings of hosts, as they came, to what they mean at the public gateway."""
        self.local: dict[bytes, HostRoute[R]] = {}
        """The same at the gateway for cluster-local hosts, which answers public hosts too."""

    @property
    def entries(self) -> Mapping[str, RouteEntry]:
        """By `namespace/name` of the Route."""
        return self._entries

    def replace(self, entries: Mapping[str, RouteEntry]) -> None:
        """Have exactly these."""
        self._entries, self._public, self._local = {}, {}, {}
        for name, entry in entries.items():
            self._add(name, entry)
        self.public, self.local = {}, {}

    def change(self, name: str, entry: RouteEntry | None) -> None:
        """One Route's entry changed, or went (None)."""
        before = self._entries.pop(name, None)
        if before is not None:
            for table, hosts in ((self._public, before.hosts), (self._local, before.local_hosts)):
                for host in hosts:
                    found = table.get(host)
                    if found is not None and found.route == name:
                        del table[host]
        if entry is not None:
            self._add(name, entry)
        self.public, self.local = {}, {}

    def _add(self, name: str, entry: RouteEntry) -> None:
        self._entries[name] = entry
        revisions = {revision: self._revision(revision) for revision in entry.revisions}
        tags: dict[str, HostRoute[R]] = {}
        for table, hosts in ((self._public, entry.hosts), (self._local, entry.local_hosts)):
            for host, shares in hosts.items():
                made = HostRoute(name, shares, revisions)
                if not made.shares:
                    continue
                table[host] = made
                if len(shares) == 1 and shares[0].tag:
                    tags.setdefault(shares[0].tag, made)
                made.tags = tags

    def find(self, authority: bytes, local: bool) -> HostRoute[R] | None:
        """Look a host up by any spelling, and remember it."""
        host = normal(authority)
        found = self._public.get(host)
        if found is None and local:
            found = self._local.get(host)
        if found is not None:
            known = self.local if local else self.public
            if len(known) >= SPELLINGS:
                known.clear()
            known[authority] = found
        return found


def normal(authority: bytes) -> str:
    """A host as routes have it: lower case, without port and trailing dot."""
    host = authority.decode("latin-1").lower()
    if not host.endswith("]"):
        name, colon, port = host.rpartition(":")
        if colon and (port.isdigit() or not port):
            host = name
    return host.rstrip(".")
