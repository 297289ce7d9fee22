"""The connections to the relay of one other node, and whether it responds."""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from activator.backend.http1_pool import Http1ConnectionPool
from activator.backend.http1_upstream import Http1Upstream
from activator.backend.relay_upstream import RelayUpstream, SlotFree
from activator.interfaces import ProxiedRequest
from activator.wire.node_socket import SILENT_SECONDS, prepare
from knoll.auth.node_identity import node_name
from knoll.messages.nodes import Node
from knoll.values import versions

CONNECT_SECONDS = 1.5
"""Time for a TCP connection: a lost SYN is sent again after a second."""
HANDSHAKE_SECONDS = 3.0
"""Time for its TLS handshake, and until the node accepts requests."""
PROBE_SECONDS = 0.05, 1.0
"""First and longest pause between attempts to reach a node that failed."""


class VersionError(OSError):
    """The other node does not accept the version of this one."""


class NodeRelay(Http1ConnectionPool):
    """Connections to one node, for requests to any of its instances."""

    __slots__ = ("_changed", "_context", "_open", "_probe", "_slot_free", "failed", "node")

    def __init__(
        self,
        node: Node,
        context: Callable[[], ssl.SSLContext | None],
        slot_free: SlotFree,
        changed: Callable[[], None],
    ) -> None:
        """
        Args:
            context: returns the TLS context with the certificate of this node; None before it has one.
            changed: called when `failed` changes.
        """
        super().__init__()
        self.node = node
        self.failed = False
        """A connection could not be made, or ended with a request on it, and none was made since."""
        self._context = context
        self._slot_free = slot_free
        self._changed = changed
        self._open: set[RelayUpstream] = set()
        self._probe: asyncio.Task[None] | None = None

    def new_connection(self) -> Http1Upstream:
        return RelayUpstream(self, self._slot_free)

    def forward(self, exchange: ProxiedRequest, fresh: bool) -> None:
        """Send a request that has a slot. Args: fresh: use a new connection."""
        idle = self.idle
        if idle and not fresh:
            idle.pop().start(exchange)
        else:
            self.enqueue(exchange)

    async def dial(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        try:
            connection = await self._dial(factory)
        except (OSError, TimeoutError) as error:
            self.connection_failed(str(error) if isinstance(error, VersionError) else "")
            raise
        self._open.add(connection)
        if self.failed:
            self.failed = False
            self._changed()
        return connection

    async def _dial(self, factory: Callable[[], asyncio.Protocol]) -> RelayUpstream:
        node, context, loop = self.node, self._context(), asyncio.get_running_loop()
        if context is None:
            raise OSError("this node has no certificate yet")
        connection = await self._connect_socket(loop)
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            # From here on the loop closes the socket.
            transport, protocol = await loop.create_connection(
                factory, sock=connection, ssl=context, server_hostname=node.name
            )
            assert isinstance(protocol, RelayUpstream)
            if transport.get_extra_info("ssl_object").selected_alpn_protocol() is None:
                transport.abort()
                raise VersionError(f"the node {node.name} does not accept this node's version; {versions.HOW}")
            try:
                ready = await protocol.ready
            except asyncio.CancelledError:
                transport.abort()
                raise
        if not ready or transport.is_closing():  # it may drain already
            raise OSError(f"the node {node.name} ended the connection")
        if node_name(transport.get_extra_info("peercert")) != node.name:
            transport.abort()
            raise OSError(f"{node.address}:{node.relay_port} has a certificate that is not for the node {node.name}")
        prepare(transport)
        return protocol

    async def _connect_socket(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        node = self.node
        connection = socket.socket(socket.AF_INET6 if ":" in node.address else socket.AF_INET)
        try:
            connection.setblocking(False)
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.sock_connect(connection, (node.address, node.relay_port))
        except BaseException:
            connection.close()
            raise
        return connection

    def connection_failed(self, reason: str = "") -> None:
        """Called when a connection could not be made, or ended with a request on it.

        Instances of other nodes are preferred until the node accepts a connection again.

        Args: reason: for the requests that wait for a connection; default: the node does not respond.
        """
        if self.failed or self.retired:
            return
        self.failed = True
        self._changed()
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()
        self._end_silent()
        waiting, self.waiting = self.waiting, deque()
        for exchange, generation in waiting:
            if exchange.generation == generation:
                exchange.connection_refused(OSError(reason or f"the node {self.node.name} does not respond"))
        self._probe = asyncio.get_running_loop().create_task(self._connect_again())

    async def _connect_again(self) -> None:
        pause, longest = PROBE_SECONDS
        while self.failed and not self.retired:
            with contextlib.suppress(OSError, TimeoutError):
                self.return_connection(await self.dial(self.new_connection))
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def connection_ended(self, connection: RelayUpstream) -> None:
        """Called when a connection has ended."""
        self._open.discard(connection)

    def _end_silent(self) -> None:
        """End connections on which the machine has been silent: it is lost. Those that respond are kept."""
        for connection in list(self._open):
            if connection.silent_seconds() >= SILENT_SECONDS:
                connection.lose()

    def retire(self) -> None:
        super().retire()
        self._end_silent()
        if self._probe is not None:
            self._probe.cancel()
