"""The port for other nodes: mutual TLS by the platform's authority."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence

import structlog

from activator.frontend.http1_server import peer_address
from activator.frontend.listeners import HANDSHAKE_SECONDS, PAUSE_SECONDS
from activator.frontend.relay_server import RelayConnection
from activator.routing.proxy_state import ProxyState

log = structlog.get_logger()

MAX_HANDSHAKES = 512
"""Handshakes at once: who has no certificate yet gets no further."""


class RelayListener:
    """Accepts connections of other nodes."""

    def __init__(self, proxy: ProxyState, context: Callable[[], ssl.SSLContext | None]) -> None:
        """Args: context: returns what a new connection uses; None before this node has a certificate."""
        self._proxy = proxy
        self._context = context
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()

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
                context = self._context()
                if context is None or len(self._handshakes) >= MAX_HANDSHAKES:
                    connection.close()
                    continue
                handshake = loop.create_task(self._shake_hands(connection, peer_address(peer), context))
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
            if not client.connected:
                connection.close()

    def close(self) -> None:
        """Stop accepting; open connections stay."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        self._accepting.clear()
