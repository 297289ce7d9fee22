"""Which user owns the other end of a TCP connection within this machine, as the kernel knows it."""

import errno
import functools
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

SocketAddress = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a socket."""

    uid: int
    inode: int
    """0 if no process has the socket open."""


def owner_of(client: SocketAddress, server: SocketAddress) -> Owner | None:
    """Return the owner of the client's end of a TCP connection; None if that end is in another network namespace."""
    return _by_netlink(client, server) if _has_sock_diag() else _by_proc(client, server)


@functools.cache
def _has_sock_diag() -> bool:
    """Whether the kernel has `tcp_diag`.

    Looks up an existing connection: without `tcp_diag`, the kernel gives the same answer as for a missing one.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        try:
            return _by_netlink(client.getsockname(), listener.getsockname()) is not None
        except OSError:
            return False


# linux/inet_diag.h: struct inet_diag_req_v2 and inet_diag_msg; linux/netlink.h: struct nlmsghdr.
_HEADER = struct.Struct("=IHHII")
_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLMSG_ERROR, _NETLINK_SOCK_DIAG = 20, 1, 2, 4
_OWNER_AT = 4 + 48 + 12
"""Offset of uid and inode in inet_diag_msg: after family and states, the socket's id, expiry and two queues."""


def _by_netlink(client: SocketAddress, server: SocketAddress) -> Owner | None:
    """Look the socket up in the kernel's table in constant time. Source: sock_diag(7). Raises: OSError."""
    family = socket.AF_INET6 if ":" in plain_address(client[0]) else socket.AF_INET
    packed = [socket.inet_pton(family, plain_address(host)).ljust(16, b"\0") for host in (client[0], server[0])]
    ports = struct.pack(">HH", client[1], server[1])
    query = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    query += ports + packed[0] + packed[1] + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    header = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(1)
        asking.send(header + query)
        answer = asking.recv(4096)
    kind = _HEADER.unpack_from(answer)[1]
    if kind == _NLMSG_ERROR:
        number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if number == errno.ENOENT:
            return None
        raise OSError(number, os.strerror(number))
    uid, inode = struct.unpack_from("=II", answer, _HEADER.size + _OWNER_AT)
    return Owner(uid, inode)


def _by_proc(client: SocketAddress, server: SocketAddress) -> Owner | None:
    """Search the kernel's list of all sockets. Source: proc_pid_net(5)."""
    ends = {(_hex(client, form), _hex(server, form)) for form in (4, 6)}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if (fields[1], fields[2]) in ends:
                return Owner(int(fields[7]), int(fields[9]))
    return None


def _hex(address: SocketAddress, form: int) -> str:
    parsed = ip_address(plain_address(address[0]))
    if form == 6 and parsed.version == 4:
        parsed = IPv6Address(f"::ffff:{parsed}")
    groups = [parsed.packed[at : at + 4][::-1] for at in range(0, len(parsed.packed), 4)]
    return f"{b''.join(groups).hex().upper()}:{address[1]:04X}"


def plain_address(host: str) -> str:
    """Return an address without its zone; an IPv4-mapped IPv6 address as IPv4."""
    parsed = ip_address(host.partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
