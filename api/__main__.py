"""The API process: settings, logs, Redis, store, HTTP servers, controllers, and a graceful end."""

from knoll import lean

lean.begin()

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog
import uvloop
from starlette.types import ASGIApp

from api import access, certificates, owner, seeds
from api.app import create_app
from api.controllers.run import run as run_controllers
from knoll import admin, logs, resealing
from knoll.admin import QuietServer
from knoll.connect import connected
from knoll.errors import KnollError
from knoll.live import LiveConfig
from knoll.redis_store import RedisStore
from knoll.settings import ApiSettings

log = structlog.get_logger()

GRACE_SECONDS = 10
"""How long open requests may take to end when the process is asked to stop."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays: longer than clients keep theirs, so that none is closed under a request."""


DAY = 24 * 3600.0


async def run(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Serve and reconcile until `stop` is set. Raises: OSError: a port is taken, or the state cannot be kept."""
    async with connected(settings.redis_url, "knoll-api") as redis:
        store = RedisStore(redis, keyring=settings.keyring)
        live, config_maps = LiveConfig.of(store)
        following = asyncio.create_task(config_maps.run())
        files = _certificates(settings)[0] if settings.api_tls_port else None
        authority = files.authority.read_text() if files else ""
        app = create_app(store, settings, config=lambda: live.current, redis=redis, authority=authority)
        plain = access.Trusting(app) if settings.trusts_plain else app
        servers = [_server(plain, settings.api_host, settings.api_port)]
        if files:
            servers.append(_server(app, settings.api_tls_host, settings.api_tls_port, files))

        async def planted() -> None:
            if files:
                await owner.write(store, redis, settings, authority)

        helpers = [
            following,
            asyncio.create_task(seeds.keep(store, settings, planted)),
            asyncio.create_task(resealing.at_start(redis, settings.keyring)),
            asyncio.create_task(_end(stop, servers, app.state.watches.close)),
            *([asyncio.create_task(_renew(settings, servers[1], planted))] if files else []),
        ]
        controllers = asyncio.create_task(run_controllers(store, redis, settings, stop))
        # A bug that ends the controllers ends the process: its supervisor starts it again.
        controllers.add_done_callback(lambda _: stop.set())
        try:
            await _serve(servers, stop)
        finally:
            stop.set()
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await controllers
            await store.close()


def _certificates(settings: ApiSettings) -> tuple[certificates.Files, bool]:
    return certificates.kept(settings.state_dir, settings.tls_names, datetime.now(UTC))


def _server(app: ASGIApp, host: str, port: int, files: certificates.Files | None = None) -> QuietServer:
    config = admin.config(
        app,
        host,
        port,
        lifespan="off" if files else "on",  # one application: it begins and ends once
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=files.certificate if files else None,
        ssl_keyfile=files.key if files else None,
    )
    return QuietServer(config)


async def _serve(servers: Sequence[QuietServer], stop: asyncio.Event) -> None:
    async def one(server: QuietServer) -> None:
        try:
            await server.serve()
        except SystemExit:  # uvicorn's way to say that it could not bind
            where = f"{server.config.host}:{server.config.port}"
            raise OSError(f"cannot listen on {where}; is the port taken?") from None
        finally:
            stop.set()

    ends = await asyncio.gather(*(one(server) for server in servers), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


async def _renew(settings: ApiSettings, server: QuietServer, planted: Callable[[], Awaitable[None]]) -> None:
    """Certificate and kubeconfig are renewed before they end, however long the process runs."""
    while True:
        await asyncio.sleep(DAY)
        try:
            files, fresh = await asyncio.to_thread(_certificates, settings)
            if fresh and server.config.ssl:
                server.config.ssl.load_cert_chain(files.certificate, files.key)
            await planted()
        except (OSError, KnollError) as error:
            log.warning("certificate not renewed; tried again tomorrow", error=str(error))


async def _end(stop: asyncio.Event, servers: Sequence[QuietServer], close_watches: "seeds.Action") -> None:
    await stop.wait()
    log.info("api stops")
    close_watches()
    for server in servers:
        server.should_exit = True


async def main() -> int:
    """Returns the process's exit code."""
    settings = ApiSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "api")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    log.info("api starts", host=settings.api_host, port=settings.api_port)
    try:
        await run(settings, stop)
    except OSError as error:
        log.error("api cannot run", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    lean.settle()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
