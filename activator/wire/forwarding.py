"""Forwarding fields of requests to instances: Forwarded (RFC 7239) and X-Forwarded-*. Pure.

Fields of a client are used only if it is a trusted proxy of config-network. Otherwise they are replaced by what the
activator observes, and no similar field reaches an instance.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from activator.wire.http1_heads import RequestHead
from knoll.values.destinations import IPNetwork

_MAX_CACHED = 10_000
_REWRITTEN = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"))

_is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a connection, for the forwarding fields."""

    address: bytes
    """IP address without brackets."""
    scheme: bytes = b"http"


class Proxies:
    """Trusted proxies."""

    def __init__(self, networks: Iterable[IPNetwork] = ()) -> None:
        self._networks = tuple(networks)
        self._trusted: dict[bytes, bool] = {}

    def trusts(self, address: bytes) -> bool:
        """Whether an address is that of a trusted proxy."""
        if not self._networks:
            return False
        trusted = self._trusted.get(address)
        if trusted is None:
            if len(self._trusted) >= _MAX_CACHED:
                self._trusted.clear()
            trusted = self._trusted[address] = self._is_inside(address)
        return trusted

    def _is_inside(self, address: bytes) -> bool:
        try:
            parsed = ip_address(address.decode("latin-1"))
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)

    def scheme(self, peer: Peer, head: RequestHead) -> bytes:
        """Return the scheme that the original client used, according to trusted proxies."""
        if head.forwarded is None or not self.trusts(peer.address):
            return peer.scheme
        return _first(head.forwarded.get(b"x-forwarded-proto", b"")).lower() or peer.scheme

    def fields(self, peer: Peer, head: RequestHead) -> bytes:
        """Return the field lines for an instance.

        For a trusted proxy, X-Forwarded-For is appended to and the other fields are kept. Without a `Forwarded` field,
        it is built from them as in Knative: `for=` of the first node with host and proto, then the other nodes.
        """
        received: dict[bytes, bytes] = {}
        if head.forwarded is not None and self.trusts(peer.address):
            received = head.forwarded
        before = received.get(b"x-forwarded-for")
        nodes = before + b", " + peer.address if before else peer.address
        proto = received.get(b"x-forwarded-proto") or peer.scheme
        host = received.get(b"x-forwarded-host") or head.authority
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (nodes, proto)
        if host:
            lines += b"X-Forwarded-Host: %b\r\n" % host
        for name, value in received.items():
            if name not in _REWRITTEN:
                lines += b"%b: %b\r\n" % (name.title(), value)
        return lines + b"Forwarded: %b\r\n" % (received.get(b"forwarded") or _forwarded(nodes, host, proto))


def _forwarded(nodes: bytes, host: bytes, proto: bytes) -> bytes:
    first, *further = [_node(node) for node in nodes.split(b",")]
    element = b"for=%b" % first
    if host:
        element += b";host=%b" % (host if _is_token(host) else b'"%b"' % host.replace(b'"', b""))
    element += b";proto=%b" % _first(proto)
    return b", ".join([element, *(b"for=%b" % node for node in further)])


def _first(values: bytes) -> bytes:
    return values.split(b",")[0].strip()


def _node(address: bytes) -> bytes:
    address = address.strip(b' \t"')
    return b'"[%b]"' % address.strip(b"[]") if b":" in address else address
