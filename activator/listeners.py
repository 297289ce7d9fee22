"""The ports that requests arrive on."""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import uvicorn

from activator.gateway import Gateway
from activator.server import Client
from knoll.admin import QuietServer

BACKLOG = 4096


def more_files() -> None:
    """Take as many open files as the system allows: each request holds two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket that several processes may have beside each other.

    Raises: OSError, with the address in its message.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
    """uvicorn's server around our protocol: it accepts, we own the bytes."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._servers: list[tuple[QuietServer, asyncio.Task[None]]] = []

    async def open(
        self, sockets: Sequence[socket.socket], *, local: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        """Accept connections on these sockets until `close`."""

        def protocol(**_: Any) -> Client:
            return Client(self._gateway, local)

        config = uvicorn.Config(
            app=_no_application, interface="asgi3", http=protocol, lifespan="off", log_config=None, ws="none",  # type: ignore[arg-type]
            timeout_graceful_shutdown=1, backlog=BACKLOG,
        )  # fmt: skip
        config.load()
        config.ssl = tls
        server = QuietServer(config)
        task = asyncio.create_task(server.serve(sockets=list(sockets)))
        self._servers.append((server, task))
        while not server.started:
            if task.done():
                await task
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Accept nothing more; connections that are there stay."""
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._servers))
        self._servers.clear()


async def _no_application(*_: object) -> None:
    raise AssertionError("requests never get to an ASGI application")
