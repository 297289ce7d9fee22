"""The port for other nodes: mutual TLS with certificates of the platform's authority."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from activator.frontend.http1_server import peer_address
from activator.frontend.listeners import HANDSHAKE_SECONDS, PAUSE_SECONDS
from activator.frontend.relay_server import RelayConnection
from activator.routing.proxy_state import ProxyState

log = structlog.get_logger()

MAX_HANDSHAKES = 256
"""Concurrent handshakes per client address, so that a client without a certificate cannot lock nodes out."""


class RelayListener:
    """Accepts connections of other nodes."""

    def __init__(self, proxy: ProxyState, context: Callable[[], ssl.SSLContext | None]) -> None:
        """Args: context: returns the TLS context of new connections; None before this node has a certificate."""
        self._proxy = proxy
        self._context = context
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._of_address: Counter[bytes] = Counter()
        """Handshakes by the address of the client."""

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on these sockets until `close`."""
        self._accepting = [asyncio.get_running_loop().create_task(self._accept(each)) for each in sockets]

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, peer = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("accept failed", error=str(error))
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                context, address = self._context(), peer_address(peer)
                if context is None or self._of_address[address] >= MAX_HANDSHAKES:
                    connection.close()
                    continue
                self._of_address[address] += 1
                handshake = loop.create_task(self._shake_hands(connection, address, context))
                self._handshakes.add(handshake)
                handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket, address: bytes, context: ssl.SSLContext) -> None:
        client = RelayConnection(self._proxy)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: client, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:  # TLS errors and the time-out are subclasses
            log.warning("relay handshake failed", client=address.decode(), error=repr(error))
        finally:
            self._of_address -= Counter((address,))
            if not client.connected:
                connection.close()

    def node_removed(self, node: str) -> None:
        """Called when a node has left the table of nodes."""
        for connection in list(self._proxy.connections):
            if isinstance(connection, RelayConnection) and connection.node == node:
                connection.node_removed()

    async def close(self) -> None:
        """Stop accepting, and wait for handshakes; open connections are kept."""
        for task in self._accepting:
            task.cancel()
        self._accepting.clear()
        if self._handshakes:
            await asyncio.wait(self._handshakes, timeout=HANDSHAKE_SECONDS)
