"""Hosts to revisions: the followed routing table, compiled for look-ups. Pure.

What a Host header says (`Shop.Default.localhost:8080`) is looked up as it came; the first request with a spelling pays
for making it lower case and cutting off its port. 10 000 routes cost a hot request nothing.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Generic, TypeVar

from knoll.messages.hosts import Claim, Owners
from knoll.messages.routing import RouteEntry, Share, pick

SPELLINGS = 20_000
"""Spellings of hosts that are remembered; then all are forgotten."""

R = TypeVar("R")


class HostRoute(Generic[R]):
    """Where the requests of one host go."""

    __slots__ = ("_draw", "_only", "_revisions", "claim", "cookie", "redirect", "shares", "tags")

    def __init__(
        self,
        claim: Claim,
        shares: tuple[Share, ...],
        revisions: Mapping[str, R],
        draw: Callable[[], float],
        sticky: bool,
        redirect: int = 0,
    ) -> None:
        """
        Args:
            claim: of the host; its path is `namespace/name` of the Route.
            sticky: a client stays with its revision.
            redirect: port of https that plain http is sent on to; 0 is none.
            revisions: at least those that the shares name.
            draw: gives a number in [0, 1).
        """
        self.claim = claim
        self._draw = draw
        self.redirect = redirect
        self.shares = tuple(share for share in shares if share.percent)
        self.tags: dict[str, HostRoute[R]] = {}
        """Routes of the same Route's tags, for the tag header."""
        self.cookie = b""
        """Name of the cookie that says which revision a client was given; empty when all its requests are alike."""
        if sticky and len(self.shares) > 1:
            self.cookie = b"knoll-affinity-" + _digest(claim.path)
        self._revisions = [revisions[share.revision] for share in self.shares]
        self._only = self._revisions[0] if len(self._revisions) == 1 else None

    @property
    def route(self) -> str:
        """`namespace/name`."""
        return self.claim.path

    def pick(self) -> R:
        """Draw a revision by weight."""
        if self._only is not None:
            return self._only
        share = pick(self.shares, int(self._draw() * 100))
        return self._revisions[self.shares.index(share)]

    def pick_for(self, cookies: bytes) -> tuple[R, bytes]:
        """Give a client the revision that its cookie names, as long as that has a share; otherwise draw one.

        Args:
            cookies: the request's Cookie.

        Returns:
            The revision, and the Set-Cookie line for a client that has to be told (empty for others).
        """
        said = _value(cookies, self.cookie)
        for share, revision in zip(self.shares, self._revisions, strict=True):
            if said and said == _digest(share.revision):
                return revision, b""
        share = pick(self.shares, int(self._draw() * 100))
        value = _digest(share.revision)
        line = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % (self.cookie, value)
        return self._revisions[self.shares.index(share)], line


@lru_cache(4096)
def _digest(name: str) -> bytes:
    """A name as it may stand in a cookie: it says nothing about how revisions are called."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest().encode()


def _value(cookies: bytes, name: bytes) -> bytes:
    for cookie in cookies.split(b";"):
        key, _, value = cookie.strip().partition(b"=")
        if key == name:
            return value
    return b""


class RoutingTable(Generic[R]):
    """All routes. `replace` and `change` leave a table that is whole at any time."""

    def __init__(self, revision: Callable[[str], R], draw: Callable[[], float]) -> None:
        """
        Args:
            revision: returns the revision of a name, and makes it if there is none.
            draw: gives a number in [0, 1), for the choice by weight.
        """
        self._draw = draw
        self._revision = revision
        self._entries: dict[str, RouteEntry] = {}
        self._public: Owners[HostRoute[R]] = Owners()
        self._local: Owners[HostRoute[R]] = Owners()
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
        self._entries, self._public, self._local = {}, Owners(), Owners()
        for name, entry in entries.items():
            self._add(name, entry)
        self.public, self.local = {}, {}

    def change(self, name: str, entry: RouteEntry | None) -> None:
        """One Route's entry changed, or went (None)."""
        before = self._entries.pop(name, None)
        if before is not None:
            for table, hosts in ((self._public, before.hosts), (self._local, before.local_hosts)):
                for host in hosts:
                    table.remove(host, name)
        if entry is not None:
            self._add(name, entry)
        self.public, self.local = {}, {}

    def _add(self, name: str, entry: RouteEntry) -> None:
        self._entries[name] = entry
        revisions = {revision: self._revision(revision) for revision in entry.revisions}
        tags: dict[str, HostRoute[R]] = {}
        kinds = ((self._public, entry.hosts, entry.redirect), (self._local, entry.local_hosts, 0))
        for table, hosts, redirect in kinds:
            for host, shares in hosts.items():
                made = HostRoute(entry.claim(name, host), shares, revisions, self._draw, entry.sticky, redirect)
                if not made.shares:
                    continue
                table.put(host, made)
                if len(shares) == 1 and shares[0].tag:
                    tags.setdefault(shares[0].tag, made)
                made.tags = tags

    def find(self, authority: bytes, local: bool) -> HostRoute[R] | None:
        """Look a host up by any spelling, and remember it.

        Inside, the name of a Service comes before a host that a DomainMapping may have under the same name.
        """
        host = normal(authority)
        found = self._local.owned.get(host) if local else None
        if found is None:
            found = self._public.owned.get(host)
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
