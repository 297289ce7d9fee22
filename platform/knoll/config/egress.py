"""Lists of allowed destinations in ConfigMaps and annotations: networks, addresses and hosts, with or without a port.

Pure. The firewall resolves host names; see `knoll.firewall`.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\.?", re.I)
_NUMERIC = re.compile(r"[0-9./]+")
MAX_EGRESS_RULES = 256
"""Maximum length of a list, because each entry is a rule in the kernel."""


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One entry of a list."""

    host: str
    """An IPv4 network (`10.0.0.0/8`, `10.1.2.3/32`), or a host name in lower case."""
    port: int | None = None
    """1 to 65535; None for all ports."""

    @property
    def network(self) -> IPv4Network | None:
        """The network; None for a host name."""
        return IPv4Network(self.host) if "/" in self.host else None


def parse_egress(text: str) -> tuple[EgressRule, ...]:
    """Parse a list whose entries are separated by commas or whitespace.

    Args:
        text: such as `10.20.0.0/16, registry.example.com:5000, 192.168.1.7:5432`; may be empty.

    Returns: the entries in order, without duplicates.

    Raises:
        ValueError: names the first invalid entry and the reason.
    """
    entries = tuple(dict.fromkeys(parse_egress_rule(entry) for entry in text.replace(",", " ").split()))
    if len(entries) > MAX_EGRESS_RULES:
        raise ValueError(f"has {len(entries)} entries, but at most {MAX_EGRESS_RULES} are allowed")
    return entries


def parse_egress_rule(entry: str) -> EgressRule:
    """Parse one entry. Raises: ValueError."""
    if "//" in entry:
        raise ValueError(f"{entry!r} is a URL: use only its host, or host:port")
    host, colon, port = entry.rpartition(":")
    if not colon:
        host, port = entry, ""
    elif ":" in host:
        raise ValueError(f"{entry!r}: IPv6 is not supported: the networks of instances and builds are IPv4 only")
    if colon and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{entry!r}: the port must be a number from 1 to 65535")
    number = int(port) if port else None
    if _NUMERIC.fullmatch(host):
        try:
            network = ip_network(host, strict=True)
        except ValueError as error:
            raise ValueError(f"{entry!r}: {error}") from None
        return EgressRule(str(network), number)
    if not _HOST.fullmatch(host):
        raise ValueError(f"{entry!r} is neither an IPv4 address, nor a network such as 10.0.0.0/8, nor a host name")
    return EgressRule(host.lower().rstrip("."), number)
