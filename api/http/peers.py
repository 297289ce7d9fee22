"""Decides whether the client of a connection without a token is the administrator of a single-user installation.

The plain port has no tokens, so the decision rests on what the kernel knows about a client. A client on this machine
owns a socket here: the administrator is the user that runs this process, or root. The owner alone is not enough:

- A socket that its process has already closed has no owner; the kernel then reports 0, which is root. Such a socket has
  no inode.
- A container that shares this machine's network has users with the same numbers, including root. Its processes are in
  another PID namespace, so the process that holds the socket must be in ours. Only root sees the processes of other
  users; a client whose process is not visible is not the administrator, and neither is root unless this process runs
  as root.

In a container (Compose), clients on the machine connect through the engine and have the address of the network's
gateway. Nothing else is known about them, and `KNOLL_API_TRUSTS_PLAIN=true` makes this address trusted. No other
machine and no other container can have it.
"""

import asyncio
import errno
import functools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from starlette.types import Scope

from api.http.protocol import CONNECTION, ApiProtocol
from knoll.values.errors import UnauthorizedError

SocketAddress = tuple[str, int]
HELP = (
    "get a token: the owner's kubeconfig has one (`knoll up` prints its path; with Compose "
    "`docker compose exec api knoll kubeconfig`), and the owner can create others "
    "(`knoll kubeconfig --service-account NAME`)"
)
_PROC = Path("/proc")
_ROOT = 0


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a socket."""

    uid: int
    inode: int
    """0 if no process has the socket open."""


class Peers:
    """Checks the clients of one port."""

    def __init__(self, *, gateway: bool = False, uid: int | None = None) -> None:
        """
        Args:
            gateway: whether clients with the default gateway's address are trusted.
            uid: user of the administrator's processes, besides root; by default the user of this process.
        """
        self._gateway = default_gateway() if gateway else ""
        self._uid = os.geteuid() if uid is None else uid

    async def check(self, scope: Scope) -> None:
        """Refuse a request without a token unless its client is the administrator.

        Raises: UnauthorizedError.
        """
        connection: ApiProtocol | None = scope.get(CONNECTION)
        if connection is None:
            reason = await asyncio.to_thread(self.refusal, scope.get("client"), scope.get("server"))
        else:
            if connection.peer_refusal is None:
                connection.peer_refusal = await self._look(connection)
            reason = connection.peer_refusal
        if reason:
            raise UnauthorizedError(f"Unauthorized: {reason}; {HELP}")

    async def _look(self, connection: ApiProtocol) -> str:
        plain = connection.transport.get_extra_info("socket")
        if plain is not None and plain.family == socket.AF_UNIX:
            _, uid, _ = struct.unpack("3i", plain.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return "" if uid in (self._uid, _ROOT) else _other_user(uid)
        return await asyncio.to_thread(self.refusal, connection.client, connection.server)

    def refusal(self, client: "SocketAddress | None", server: "tuple[str, int | None] | None") -> str:
        """Return why the client is not the administrator; empty if it is. Takes a few milliseconds."""
        if client is None or server is None:
            return "this connection has no address"
        owner = owner_of(client, (server[0], server[1] or 0))
        if owner is None:
            if self._gateway and _plain(client[0]) == self._gateway:
                return ""
            return f"without a token this port only accepts clients on this machine; {client[0]} is not one"
        if not owner.inode:
            return "the client has already closed its end of the connection"
        if owner.uid not in (self._uid, _ROOT):
            return _other_user(owner.uid)
        if not is_held_here(owner):
            return (
                "the client's process is not visible: it runs in a container or as another user "
                "(as root, unless the platform runs as root too)"
            )
        return ""


def _other_user(uid: int) -> str:
    return f"without a token this port only accepts the user who runs the platform; the client has uid {uid}"


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
    family = socket.AF_INET6 if ":" in _plain(client[0]) else socket.AF_INET
    packed = [socket.inet_pton(family, _plain(host)).ljust(16, b"\0") for host in (client[0], server[0])]
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
    parsed = ip_address(_plain(address[0]))
    if form == 6 and parsed.version == 4:
        parsed = IPv6Address(f"::ffff:{parsed}")
    groups = [parsed.packed[at : at + 4][::-1] for at in range(0, len(parsed.packed), 4)]
    return f"{b''.join(groups).hex().upper()}:{address[1]:04X}"


def _plain(host: str) -> str:
    """An address without its zone; an IPv4-mapped IPv6 address as IPv4."""
    parsed = ip_address(host.partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def is_held_here(owner: Owner) -> bool:
    """Whether a visible process of this PID namespace has the socket open."""
    link, here = f"socket:[{owner.inode}]", os.readlink("/proc/self/ns/pid")
    for pid in _processes(owner.uid):
        try:
            with os.scandir(_PROC / pid / "fd") as files:
                held = any(_target(file.path) == link for file in files)
            if held and os.readlink(_PROC / pid / "ns" / "pid") == here:
                return True
        except OSError:
            continue
    return False


def _processes(uid: int) -> Iterator[str]:
    """Process ids of a user, newest first: a client has often just started."""
    for pid in sorted((name for name in os.listdir(_PROC) if name.isdigit()), key=int, reverse=True):
        try:
            if os.stat(_PROC / pid).st_uid == uid:
                yield pid
        except OSError:
            continue


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def default_gateway(read: Callable[[], str] = lambda: Path("/proc/net/route").read_text()) -> str:
    """Return the address of this network's default gateway; empty if there is none. Source: proc_pid_net(5)."""
    try:
        lines = read().splitlines()[1:]
    except OSError:
        return ""
    for fields in map(str.split, lines):
        if fields[1] == fields[7] == "00000000" and int(fields[3], 16) & 2:
            return str(ip_address(bytes.fromhex(fields[2])[::-1]))
    return ""
