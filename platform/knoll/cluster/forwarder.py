"""Forwards connections between machines over mutual TLS: Redis, logs of instances, uploads, images.

All services of a machine share one port; the ALPN protocol selects the service, and names the version of the machine
that connects (`knoll-redis/1.4`): a machine accepts its own minor version and those beside it. `Ingress` accepts
connections of other machines, and forwards them to a service of its own machine. `Egress` listens for programs of its
own machine, and connects to another one.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass

import structlog
from cryptography import x509

from knoll.auth import certificates
from knoll.cluster.node_folder import NodeFolder, accepted_protocols
from knoll.process.socket_owner import owner_of
from knoll.values import versions

log = structlog.get_logger()

HANDSHAKE_SECONDS, CONNECT_SECONDS = 10.0, 5.0
MAX_CONNECTIONS = 4096
CHUNK = 64 * 1024
_GROUP = frozenset((*accepted_protocols("redis"), *accepted_protocols("sentinel")))
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)
"""A connection ends half a minute after its other machine was lost, whether or not it has data to send.
Source: tcp(7)."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A service of another machine."""

    node: str
    address: str
    port: int
    service: str


class Ingress:
    """Accepts connections of other machines for services of this one."""

    def __init__(
        self,
        folder: NodeFolder,
        targets: Mapping[str, tuple[str, int]],
        members: Callable[[], Set[str]],
        replicating: Callable[[], Set[str]] = frozenset,
    ) -> None:
        """
        Args:
            targets: host and port by service.
            members: returns the names of the nodes that may connect.
            replicating: returns the names of more nodes that may connect, to Redis and its sentinel only.
        """
        self._targets, self._members, self._replicating = targets, members, replicating
        self.context = folder.context(server=True)
        self.context.set_alpn_protocols(sorted(targets))
        self._open: dict[asyncio.Task[None], tuple[str, str]] = {}

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen. Raises: OSError."""
        return await asyncio.start_server(
            self._accepted,
            host,
            port,
            ssl=self.context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            limit=CHUNK,
        )

    def drop_strangers(self) -> None:
        """End the connections of nodes that are no longer members."""
        for task, (node, service) in list(self._open.items()):
            if not self._may(node, service):
                task.cancel()

    def _may(self, node: str, service: str) -> bool:
        return node in self._members() or (service in _GROUP and node in self._replicating())

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        node, service = _peer(tls), tls.selected_alpn_protocol() or ""
        target = self._targets.get(service)
        if target is None or not self._may(node, service) or len(self._open) >= MAX_CONNECTIONS:
            reason = "" if service else f"it offers no service of a version that this machine accepts; {versions.HOW}"
            log.warning("connection of a machine refused", node=node, service=service, reason=reason)
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = node, service
        try:
            _keep_alive(writer)
            await joined(reader, writer, lambda: asyncio.open_connection(*target, limit=CHUNK), service)
        except asyncio.CancelledError:
            writer.transport.abort()  # cancelled by `drop_strangers`: only this connection ends
        finally:
            self._open.pop(task, None)


class Egress:
    """Listens on this machine, and forwards to a service of another one."""

    def __init__(self, folder: NodeFolder, remote: Remote, *, root_only: bool = False) -> None:
        """Args: root_only: accept connections of this machine's root only, such as those of its engine."""
        self._remote, self._root_only = remote, root_only
        self._connections = 0
        self.context = folder.context(server=False)
        self.context.set_alpn_protocols([remote.service])

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen. Raises: OSError."""
        return await asyncio.start_server(self._accepted, host, port, limit=CHUNK)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the service. Raises: OSError: the machine cannot be reached, or is another one."""
        remote = self._remote
        reader, writer = await asyncio.open_connection(
            remote.address,
            remote.port,
            ssl=self.context,
            server_hostname=remote.node,
            ssl_handshake_timeout=CONNECT_SECONDS,
            limit=CHUNK,
        )
        tls = writer.get_extra_info("ssl_object")
        if _peer(tls) == remote.node and tls.selected_alpn_protocol() is None:
            writer.transport.abort()
            raise OSError(f"{remote.node} does not accept {remote.service} of this machine's version; {versions.HOW}")
        if _peer(tls) != remote.node or tls.selected_alpn_protocol() != remote.service:
            writer.transport.abort()
            raise OSError(f"{remote.address}:{remote.port} is not the service {remote.service} of {remote.node}")
        _keep_alive(writer)
        return reader, writer

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            log.warning("connection to a machine refused", node=self._remote.node, service=self._remote.service)
            writer.transport.abort()
            return
        if self._root_only and not await asyncio.to_thread(_is_of_root, writer):
            log.warning("connection of another user refused", service=self._remote.service)
            writer.transport.abort()
            return
        self._connections += 1
        try:
            await joined(reader, writer, self.connect, self._remote.service)
        finally:
            self._connections -= 1


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    for level, option, value in _KEEP_ALIVE:
        connection.setsockopt(level, option, value)


def _is_of_root(writer: asyncio.StreamWriter) -> bool:
    """Return whether a process of root has the other end, which has an owner only on this machine."""
    owner = owner_of(writer.get_extra_info("peername")[:2], writer.get_extra_info("sockname")[:2])
    return owner is not None and owner.inode != 0 and owner.uid == 0


def _peer(tls: ssl.SSLObject) -> str:
    certificate = tls.getpeercert(binary_form=True)
    return certificates.node_name(x509.load_der_x509_certificate(certificate)) if certificate else ""


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def joined(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    connect: Connect,
    service: str,
) -> None:
    """Connect to the other side and pass bytes both ways until either side ends."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            there, back = await connect()
    except (OSError, TimeoutError) as error:
        log.warning("service not reached", service=service, error=str(error) or "timeout")
        writer.transport.abort()
        return
    try:
        await _pass_on(reader, writer, there, back)
    finally:
        for each in (writer, back):
            with contextlib.suppress(OSError):
                each.close()


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    back: asyncio.StreamWriter,
) -> None:
    """Pass bytes both ways; asyncio's TLS has no half-closed connections, so the end of one direction ends both."""
    tasks = [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(there, writer))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
