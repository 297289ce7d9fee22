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
import os
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

from starlette.types import Scope

from api.http.protocol import CONNECTION, ApiProtocol
from knoll.process.socket_owner import Owner, SocketAddress, owner_of, plain_address
from knoll.values.errors import UnauthorizedError

HELP = (
    "get a token: the owner's kubeconfig has one (`knoll up` prints its path; with Compose "
    "`docker compose exec api knoll kubeconfig`), and the owner can create others "
    "(`knoll kubeconfig --service-account NAME`)"
)
_PROC = Path("/proc")
_ROOT = 0


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
            if self._gateway and plain_address(client[0]) == self._gateway:
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
