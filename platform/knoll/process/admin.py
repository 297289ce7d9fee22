"""The admin HTTP server of each process: /healthz, /readyz, /metrics, and routes that the process adds."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from email.utils import formatdate
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp
from uvicorn.server import ServerState

ReadinessCheck = Callable[[], Awaitable[str]]
"""Returns what a process is waiting for before it is ready; an empty string if it is ready."""


MetricsSource = Callable[[], bytes | Awaitable[bytes]]
"""Returns the text of /metrics."""


def app(ready: ReadinessCheck, routes: Sequence[BaseRoute] = (), metrics: MetricsSource = generate_latest) -> Starlette:
    """/healthz returns 200 while the process runs, /readyz 200 or 503 with the reason, /metrics is for Prometheus."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        missing = await ready()
        return PlainTextResponse(missing or "ok", 503 if missing else 200)

    async def exposition(_: Request) -> Response:
        text = metrics()
        return Response(text if isinstance(text, bytes) else await text, media_type=CONTENT_TYPE_LATEST)

    own = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)]
    return Starlette(routes=[*own, *routes])


class DatedHeaders(ServerState):
    """Makes the `Date` of responses when it is needed; uvicorn does it in a timer."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers, self._second = headers, 0
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._dated = [(b"date", formatdate(second, usegmt=True).encode()), *self._headers]
        return self._dated

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        pass


class QuietServer(uvicorn.Server):
    """A uvicorn server that does not handle signals, and has no timer: it polls for its end otherwise."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._asked = asyncio.Event()
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.server_state = DatedHeaders(self.config.encoded_headers)
        await super().startup(sockets)

    @property
    def should_exit(self) -> bool:
        """Whether it is shutting down; setting it starts the shutdown immediately."""
        return self._asked.is_set()

    @should_exit.setter
    def should_exit(self, ends: bool) -> None:
        if ends:
            self._asked.set()
        else:
            self._asked.clear()

    async def main_loop(self) -> None:
        await self._asked.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def config(app: ASGIApp, host: str, port: int, **options: Any) -> uvicorn.Config:
    """Settings of a server: no own logging, no WebSockets, no Server header, no trusted proxy in front."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        **{"headers": [("X-Content-Type-Options", "nosniff")], **options},
    )


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    grace_seconds: int = 5,
    *,
    listener: socket.socket | None = None,
) -> None:
    """Serve until `stop` is set; open requests then have `grace_seconds` to finish.

    Args: listener: listening socket to use instead of `host` and `port`.

    Raises: OSError when the port is taken.
    """
    server = QuietServer(config(app, host, port, timeout_graceful_shutdown=grace_seconds))
    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        await server.serve(sockets=[listener] if listener else None)
    except SystemExit as error:  # uvicorn exits like this if it cannot bind
        raise OSError(f"cannot listen on {host}:{port}; is the port taken?") from error
    finally:
        stopping.cancel()
