"""The API's servers: plain HTTP, HTTPS or a Unix socket, which share the limits on connections."""

import asyncio
import contextlib
import os
import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from api.http import protocol
from api.http.connections import Connections
from api.http.own_certificate import Files
from knoll.process import admin
from knoll.process.admin import QuietServer

GRACE_SECONDS = 10
"""How long a graceful stop waits for open requests, in seconds."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open, in seconds: longer than in clients, so that they close it first."""
HANDSHAKE_SECONDS = 10.0
"""Time limit of a TLS handshake. kube-apiserver: `tlsHandshakeTimeout`, 10 s."""
SHUTDOWN_SECONDS = 5.0
"""Time limit of the shutdown of a TLS connection, in seconds."""
SPARE_FILES = 256
"""Open files that are reserved for Redis, uploads, and connections over the limit."""
MAX_CONNECTIONS = 16_384


class ApiServer(QuietServer):
    """One listener."""

    def __init__(self, config: uvicorn.Config, unix: Path | None = None) -> None:
        """Args: unix: path of a socket to listen on instead of host and port."""
        super().__init__(config)
        self._unix = unix

    @property
    def address(self) -> str:
        return str(self._unix) if self._unix else f"{self.config.host}:{self.config.port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's server, with time limits on TLS and a Unix socket that only its owner may use."""
        self.server_state = admin.DatedHeaders(self.config.encoded_headers)
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(3)  # as uvicorn's
        config, loop = self.config, asyncio.get_running_loop()

        def connected() -> asyncio.Protocol:
            kind = config.http_protocol_class
            return kind(config=config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

        try:
            if self._unix:
                listener = await loop.create_unix_server(connected, sock=private_socket(self._unix))
            else:
                listener = await loop.create_server(
                    connected,
                    config.host,
                    config.port,
                    ssl=config.ssl,
                    backlog=config.backlog,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS if config.ssl else None,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS if config.ssl else None,
                )
        except OSError:
            await self.lifespan.shutdown()
            raise
        self.servers = [listener]
        self.started = True


def server(
    app: ASGIApp,
    connections: Connections,
    *,
    host: str = "",
    port: int = 0,
    unix: Path | None = None,
    files: Files | None = None,
    first: bool = False,
) -> ApiServer:
    """Return a server of the API.

    Args:
        app: may be shared by several servers.
        host, port: to listen on; or `unix`, the path of a socket.
        files: certificate and key, for HTTPS.
        first: whether this server runs the lifespan of the application; one of several does.
    """
    config = admin.config(
        app,
        host,
        port,
        http=protocol.protocol(connections),
        headers=[],  # `api.http.headers` adds the fields of every response
        lifespan="on" if first else "off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=files.certificate if files else None,
        ssl_keyfile=files.key if files else None,
    )
    return ApiServer(config, unix)


def private_socket(path: Path) -> socket.socket:
    """Create a Unix socket that only its owner may connect to; replaces one that a dead process left.

    Raises: OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return made


def bounded_connections(per_address: Callable[[], int]) -> Connections:
    """Return Connections with a limit below that of open files, which is raised to its maximum."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    files = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft - SPARE_FILES
    return Connections(max(SPARE_FILES, min(MAX_CONNECTIONS, files)), per_address)
