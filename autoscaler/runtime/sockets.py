"""What listens in an instance, and what is to be done when that is not the port of its Revision. Pure.

Source: Linux, Documentation/networking/proc_net_tcp.rst.
"""

import ipaddress
import struct
from collections.abc import Iterable

from autoscaler.runtime.protocol import Family, Listener

_LISTEN = "0A"
_DOCKER_DNS = "127.0.0.11"
"""Docker's name server has its socket in the namespace of each container."""


def parse(text: str) -> tuple[Listener, ...]:
    """The listening sockets of /proc/net/tcp and /proc/net/tcp6, each once, by port and address.

    Args:
        text: both files, one after the other; lines of another form are passed over.
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
    return tuple(sorted(result, key=lambda one: (one.port, one.address)))


def _address(text: str) -> str:
    """Words of 32 bits, each in the order of bytes of the machine, which is a little-endian one."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"<{len(words)}I", *words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def loopback_family(port: int, listeners: Iterable[Listener]) -> Family | None:
    """Where a port can be reached inside alone: on 127.0.0.1 (`4`), on ::1 (`6`); None when not, or also from outside.

    Other addresses of 127.0.0.0/8 are passed over: Knative's queue-proxy would not find the program there either.
    """
    addresses = {one.address for one in listeners if one.port == port}
    if any(not ipaddress.ip_address(address).is_loopback for address in addresses):
        return None
    if "127.0.0.1" in addresses:
        return "4"
    return "6" if "::1" in addresses else None


def hint(port: int, listeners: Iterable[Listener]) -> str:
    """Why the port of a Revision is not reached, and what to do; empty when nothing listens at all.

    Args:
        port: `ports[0].containerPort`.
    """
    others = [one for one in listeners if one.port != port]
    if not others:
        return ""
    places = dict.fromkeys(_place(one) for one in others)
    *most, last = places
    text = f"{', '.join(most)} and {last}" if most else last
    return f"nothing listens on {port}; the container listens on {text}; set ports[0].containerPort or read $PORT"


def _place(one: Listener) -> str:
    if ipaddress.ip_address(one.address).is_unspecified:
        return str(one.port)
    return f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}"
