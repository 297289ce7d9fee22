"""Listening sockets and accepted connections."""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Sequence

import structlog

from activator.frontend.http1_server import Http1Connection, peer_address
from activator.routing.proxy_state import ProxyState

log = structlog.get_logger()

BACKLOG = 4096
HANDSHAKE_SECONDS = 10.0
"""How long a TLS handshake may take."""
PAUSE_SECONDS = 0.2
"""Pause after a failed accept, as when no file descriptors are left."""


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows: each request needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; `bind_again` opens more on the same port.

    Raises: OSError, with the address in its message.
    """
    if port:
        _listen(
            host, port, shared=False
        ).close()  # fails if another process has the port, which SO_REUSEPORT would hide
    return _listen(host, port, shared=True)


def bind_again(listener: socket.socket) -> socket.socket:
    """Return another listening socket on the same port."""
    host, port = listener.getsockname()[:2]
    return _listen(host, port, shared=True)


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


class Listeners:
    """Accepts connections and hands each to an `Http1Connection`.

    Plain connections are accepted by the loop's server, not by uvicorn: nothing of an ASGI server would be used, and
    its shutdown does not suit tunnels and long responses. TLS connections are accepted here, so that they are counted
    by address before the handshake.
    """

    def __init__(self, proxy: ProxyState) -> None:
        self._proxy = proxy
        self._servers: list[asyncio.Server] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    async def open(
        self, sockets: Sequence[socket.socket], *, local: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        """Accept connections on these sockets until `close`.

        Args:
            local: they belong to the gateway for cluster-local hosts.
        """
        loop = asyncio.get_running_loop()
        for each in sockets:
            if tls is not None:
                self._accepting.append(loop.create_task(self._accept(each, tls)))
                continue
            server = await loop.create_server(lambda: Http1Connection(self._proxy, local), sock=each, backlog=BACKLOG)
            self._servers.append(server)

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        loop, connection_limit = asyncio.get_running_loop(), self._proxy.connection_limit
        with listener:
            while True:
                try:
                    connection, peer = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("accept failed", error=str(error))
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                address = peer_address(peer)
                if not connection_limit.enter(address):
                    connection.close()
                    continue
                handshake = loop.create_task(self._shake_hands(connection, address, tls))
                self._handshakes.add(handshake)
                handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket, address: bytes, tls: ssl.SSLContext) -> None:
        client = Http1Connection(self._proxy, counted=True)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: client, connection, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:  # TLS errors and the time-out are subclasses
            log.debug("TLS handshake failed", client=address.decode(), error=repr(error))
        finally:
            if not client.connected:
                connection.close()
                self._proxy.connection_limit.leave(address)

    def close(self) -> None:
        """Stop accepting; open connections stay."""
        for server in self._servers:
            server.close()
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        self._servers.clear()
        self._accepting.clear()
