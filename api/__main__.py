"""The API process: settings, logs, Redis, store, HTTP server, controllers, and a graceful end."""

from knoll import lean

lean.begin()

import asyncio
import signal
import sys

import structlog
import uvicorn
import uvloop

from api import seeds
from api.admission import Admission
from api.app import create_app
from api.controllers.run import run as run_controllers
from knoll import logs
from knoll.admin import QuietServer
from knoll.connect import connected
from knoll.live import LiveConfig
from knoll.redis_store import RedisStore
from knoll.settings import ApiSettings

log = structlog.get_logger()

GRACE_SECONDS = 10
"""How long open requests may take to end when the process is asked to stop."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays: longer than clients keep theirs, so that none is closed under a request."""


async def run(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Serve and reconcile until `stop` is set. Raises: OSError when the port is taken."""
    async with connected(settings.redis_url, "knoll-api") as redis:
        store = RedisStore(redis)
        live, config_maps = LiveConfig.of(store)
        following = asyncio.create_task(config_maps.run())
        app = create_app(store, settings, admission=Admission(lambda: live.current), redis=redis)
        config = uvicorn.Config(
            app,
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        server = QuietServer(config)
        seeding = asyncio.create_task(seeds.keep(store, settings))
        controllers = asyncio.create_task(run_controllers(store, redis, settings, stop))
        stopping = asyncio.create_task(_end(stop, server, app.state.watches.close))
        # A bug that ends the controllers ends the process: its supervisor starts it again.
        controllers.add_done_callback(lambda _: stop.set())
        try:
            await server.serve()
        except SystemExit:  # uvicorn's way to say that it could not bind
            raise OSError(f"cannot listen on {settings.api_host}:{settings.api_port}; is the port taken?") from None
        finally:
            stop.set()
            helpers = (seeding, stopping, following)
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await controllers
            await store.close()


async def _end(stop: asyncio.Event, server: uvicorn.Server, close_watches: "seeds.Action") -> None:
    await stop.wait()
    log.info("api stops")
    close_watches()
    server.should_exit = True


async def main() -> int:
    """Returns the process's exit code."""
    settings = ApiSettings()
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
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
