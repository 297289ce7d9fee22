"""Hosts to revisions: the followed routing table, compiled for look-ups. Pure.

A Host header (`Shop.Default.localhost:8080`) is looked up exactly as received; only the first request with a spelling
pays for normalising it. The cost of later look-ups does not depend on the number of routes.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Generic, TypeVar

from knoll.messages.hosts import Claim, Owners
from knoll.messages.routing import RouteEntry, Share, pick

SPELLINGS = 20_000
"""Limit of cached spellings of hosts; the cache is cleared when it is exceeded."""

R = TypeVar("R")


class HostRoute(Generic[R]):
    """The revisions that get the requests of one host, by weight."""

    __slots__ = ("_draw", "_revisions", "claim", "cookie", "only", "redirect", "shares", "tags")

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
            sticky: whether a client keeps its revision, by a cookie.
            redirect: port of https that plain http is redirected to; 0 is none.
            revisions: at least those that the shares name.
            draw: returns a number in [0, 1).
        """
        self.claim = claim
        self._draw = draw
        self.redirect = redirect
        self.shares = tuple(share for share in shares if share.percent)
        self.tags: dict[str, HostRoute[R]] = {}
        """Routes of the same Route's tags, for the tag header."""
        self.cookie = b""
        """Name of the cookie that keeps a client's revision; empty if there is none."""
        if sticky and len(self.shares) > 1:
            self.cookie = b"knoll-affinity-" + _digest(claim.path)
        self._revisions = [revisions[share.revision] for share in self.shares]
        self.only = self._revisions[0] if len(self._revisions) == 1 else None
        """The only revision; None if there are several."""

    @property
    def route(self) -> str:
        """`namespace/name`."""
        return self.claim.path

    def pick(self) -> R:
        """Draw a revision by weight."""
        if self.only is not None:
            return self.only
        share = pick(self.shares, int(self._draw() * 100))
        return self._revisions[self.shares.index(share)]

    def pick_for(self, cookies: bytes) -> tuple[R, bytes]:
        """Return the revision that the client's cookie names, if it still has a share; otherwise draw one.

        Args:
            cookies: the request's Cookie.

        Returns:
            The revision, and the Set-Cookie line if one was drawn (otherwise empty).
        """
        cookie = _value(cookies, self.cookie)
        for share, revision in zip(self.shares, self._revisions, strict=True):
            if cookie and cookie == _digest(share.revision):
                return revision, b""
        share = pick(self.shares, int(self._draw() * 100))
        value = _digest(share.revision)
        line = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % (self.cookie, value)
        return self._revisions[self.shares.index(share)], line


@lru_cache(4096)
def _digest(name: str) -> bytes:
    """Hash a name for a cookie, so that names of revisions are not disclosed."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest().encode()


def _value(cookies: bytes, name: bytes) -> bytes:
    for cookie in cookies.split(b";"):
        key, _, value = cookie.strip().partition(b"=")
        if key == name:
            return value
    return b""


class RoutingTable(Generic[R]):
    """All routes. Neither `replace` nor `change` ever leaves an incomplete table."""

    def __init__(self, revision: Callable[[str], R], draw: Callable[[], float]) -> None:
        """
        Args:
            revision: returns the revision of a name; creates it if it does not exist.
            draw: returns a number in [0, 1), for the choice by weight.
        """
        self._draw = draw
        self._revision = revision
        self._entries: dict[str, RouteEntry] = {}
        self._public: Owners[HostRoute[R]] = Owners()
        self._local: Owners[HostRoute[R]] = Owners()
        self.public: dict[bytes, HostRoute[R]] = {}
        """Spellings of hosts to their routes at the public gateway: the cache of `find`."""
        self.local: dict[bytes, HostRoute[R]] = {}
        """The same at the gateway for cluster-local hosts, which serves public hosts too."""

    @property
    def entries(self) -> Mapping[str, RouteEntry]:
        """By `namespace/name` of the Route."""
        return self._entries

    def replace(self, entries: Mapping[str, RouteEntry]) -> None:
        """Replace the whole table."""
        self._entries, self._public, self._local = {}, Owners(), Owners()
        for name, entry in entries.items():
            self._add(name, entry)
        self.public, self.local = {}, {}

    def change(self, name: str, entry: RouteEntry | None) -> None:
        """Set one Route's entry; None removes it."""
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
                host_route = HostRoute(entry.claim(name, host), shares, revisions, self._draw, entry.sticky, redirect)
                if not host_route.shares:
                    continue
                table.put(host, host_route)
                if len(shares) == 1 and shares[0].tag:
                    tags.setdefault(shares[0].tag, host_route)
                host_route.tags = tags

    def find(self, authority: bytes, local: bool) -> HostRoute[R] | None:
        """Look up a host in any spelling, and cache it.

        At the local gateway, the name of a Service has precedence over a DomainMapping's host of the same name.
        """
        host = normal(authority)
        host_route = self._local.owned.get(host) if local else None
        if host_route is None:
            host_route = self._public.owned.get(host)
        if host_route is not None:
            spellings = self.local if local else self.public
            if len(spellings) >= SPELLINGS:
                spellings.clear()
            spellings[authority] = host_route
        return host_route


def normal(authority: bytes) -> str:
    """Return the host as routes have it: lower case, without port and trailing dot."""
    host = authority.decode("latin-1").lower()
    if not host.endswith("]"):
        name, colon, port = host.rpartition(":")
        if colon and (port.isdigit() or not port):
            host = name
    return host.rstrip(".")
