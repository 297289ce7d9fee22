"""Listening sockets in an instance, and what to do when none has the port of its Revision. Pure.

Source: Linux, Documentation/networking/proc_net_tcp.rst.
"""

import ipaddress
import struct
from collections.abc import Iterable

from autoscaler.runtime.model import Family, Listener

_LISTEN = "0A"
_DOCKER_DNS = "127.0.0.11"
"""Docker's DNS server listens in the network namespace of each container."""


def parse(text: str) -> tuple[Listener, ...]:
    """Return the listening sockets of /proc/net/tcp and /proc/net/tcp6, each once, by port and address.

    Args:
        text: both files, one after the other; other lines are ignored.
    """
    result = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        if len(address) not in (8, 32):
            continue
        listener = Listener(_address(address), int(port, 16))
        if listener.address != _DOCKER_DNS:
            result.add(listener)
    return tuple(sorted(result, key=lambda listener: (listener.port, listener.address)))


def _address(text: str) -> str:
    """Parse integers of 32 bits, each in the byte order of the machine, which is little-endian."""
    integers = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"<{len(integers)}I", *integers))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def loopback_family(port: int, listeners: Iterable[Listener]) -> Family | None:
    """Return where a port is reached from inside only: 127.0.0.1 (`4`) or ::1 (`6`); None in all other cases.

    Other addresses of 127.0.0.0/8 are ignored: Knative's queue-proxy does not reach the program there either.
    """
    addresses = {listener.address for listener in listeners if listener.port == port}
    if any(not ipaddress.ip_address(address).is_loopback for address in addresses):
        return None
    if "127.0.0.1" in addresses:
        return "4"
    return "6" if "::1" in addresses else None


def hint(port: int, listeners: Iterable[Listener]) -> str:
    """Return why the port of a Revision is not reached, and what to do; empty when nothing listens at all.

    Args:
        port: `ports[0].containerPort`.
    """
    others = [listener for listener in listeners if listener.port != port]
    if not others:
        return ""
    places = dict.fromkeys(_place(listener) for listener in others)
    *most, last = places
    text = f"{', '.join(most)} and {last}" if most else last
    return f"nothing listens on {port}; the container listens on {text}; set ports[0].containerPort or read $PORT"


def _place(listener: Listener) -> str:
    address, port = listener.address, listener.port
    if ipaddress.ip_address(address).is_unspecified:
        return str(port)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
