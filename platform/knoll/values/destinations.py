"""Addresses that belong to this machine or to networks around it, and which of them an operator allows. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

INTERNAL = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/127",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
"""This host, private, shared, link-local, multicast and reserved ranges.

Source: the IANA special-purpose address registries (RFC 6890), without ranges that are never routed.
"""
_NAT64 = ip_network("64:ff9b::/96")
_6TO4 = ip_network("2002::/16")


def is_internal(address: IPAddress) -> bool:
    """Whether an address belongs to this machine or an internal network, also if it is IPv4 embedded in IPv6."""
    plain = _unwrapped(address)
    return any(plain in network for network in INTERNAL if network.version == plain.version)


def _unwrapped(address: IPAddress) -> IPAddress:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _6TO4:
            return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return address


def literal(host: str) -> IPAddress | None:
    """Parse a host that is an address, with or without brackets; None if it is a name.

    Other notations of IPv4 addresses (`127.1`, `0x7f000001`, `2130706433`) are treated as names; `host_problem`
    refuses them.
    """
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Destinations:
    """Destinations that an operator allows besides the Internet."""

    networks: tuple[IPNetwork, ...] = ()
    names: frozenset[str] = field(default_factory=frozenset)
    """Host names, lower case; one that begins with a dot matches all subdomains."""
    everything: bool = False

    @classmethod
    def parse(cls, text: str) -> "Destinations":
        """Parse addresses, ranges in CIDR form and host names, separated by commas; `*` allows everything.

        Raises: ValueError: names the invalid part.
        """
        networks: list[IPNetwork] = []
        names: set[str] = set()
        everything = False
        for part in filter(None, (part.strip() for part in text.split(","))):
            if part == "*":
                everything = True
                continue
            try:
                networks.append(ip_network(part.strip("[]")))
            except ValueError as error:
                if "/" in part or not all(label.replace("-", "").isalnum() for label in part.lstrip(".").split(".")):
                    raise ValueError(f"{part[:80]!r} is neither an address, a range, nor a host name") from error
                names.add(part.lower())
        return cls(tuple(networks), frozenset(names), everything)

    def allow_name(self, host: str) -> bool:
        """Whether a host is allowed by its name, whatever it resolves to."""
        name = host.lower().removesuffix(".")
        parents = {name[at:] for at, letter in enumerate(name) if letter == "."}
        return self.everything or name in self.names or not self.names.isdisjoint(parents)

    def allow_address(self, address: IPAddress) -> bool:
        """Whether an address is outside the internal ranges, or in an allowed range."""
        plain = _unwrapped(address)
        allowed = any(plain in network for network in self.networks if network.version == plain.version)
        return self.everything or allowed or not is_internal(address)

    def allow_all(self, host: str, addresses: Iterable[IPAddress]) -> bool:
        """Whether a host that resolves to these addresses is allowed."""
        return self.allow_name(host) or all(self.allow_address(address) for address in addresses)


def host_problem(host: str, allowed: Destinations) -> str:
    """Why a host is refused before it is resolved; empty if it is not.

    Args: host: a name, an IPv4 address or an IPv6 address in brackets; without a port.
    """
    if allowed.allow_name(host):
        return ""
    address = literal(host)
    if address is not None:
        return "" if allowed.allow_address(address) else INTERNAL_ADDRESS
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return INTERNAL_ADDRESS
    last = name.rpartition(".")[2]
    if last.isdigit() or last.startswith("0x"):
        return "must be a host name or a complete IP address"
    return ""


INTERNAL_ADDRESS = "must not be an address of this machine or of a private or link-local network"
"""The same message whether or not the address responds, so that it reveals nothing."""
