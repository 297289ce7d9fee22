"""The small HTTP server that each process has for its operators: /healthz, /readyz, /metrics, and what it adds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

Ready = Callable[[], Awaitable[str]]
"""Says what a process waits for before it can do its work; an empty string when it can."""


Metrics = Callable[[], bytes | Awaitable[bytes]]
"""Makes the text of /metrics."""


def app(ready: Ready, routes: Sequence[BaseRoute] = (), metrics: Metrics = generate_latest) -> Starlette:
    """/healthz answers 200 while the process runs, /readyz 200 or 503 with what is missing, /metrics for Prometheus."""

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


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the process around it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: ASGIApp, host: str, port: int, stop: asyncio.Event, grace_seconds: int = 5) -> None:
    """Serve until `stop` is set; open requests then have `grace_seconds` to end.

    Raises: OSError when the port is taken.
    """
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=grace_seconds
    )
    server = QuietServer(config)
    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        await server.serve()
    except SystemExit as error:  # uvicorn's way to say that it could not bind
        raise OSError(f"cannot listen on {host}:{port}; is the port taken?") from error
    finally:
        stopping.cancel()
