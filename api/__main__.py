"""The API process: settings, logs, Redis, store, HTTP server, controllers, and a graceful end."""

import asyncio
import signal
import sys

import structlog
import uvicorn

from api import seeds
from api.app import create_app
from knoll import logs
from knoll.admin import QuietServer
from knoll.connect import connected
from knoll.redis_store import RedisStore
from knoll.settings import ApiSettings

log = structlog.get_logger()

GRACE_SECONDS = 10
"""How long open requests may take to end when the process is asked to stop."""


async def run(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    async with connected(settings.redis_url, "knoll-api") as redis:
        store = RedisStore(redis)
        app = create_app(store, settings, redis=redis)
        server = QuietServer(
            uvicorn.Config(
                app,
                host=settings.api_host,
                port=settings.api_port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
                timeout_keep_alive=75,
            )
        )
        async with asyncio.TaskGroup() as tasks:
            seeding = tasks.create_task(seeds.plant(store, settings))
            stopping = tasks.create_task(_end(stop, server, app.state.watches.close))
            try:
                await server.serve()
            except SystemExit as error:  # uvicorn's way to say that it could not bind
                raise OSError(f"cannot listen on {settings.api_host}:{settings.api_port}") from error
            finally:
                stopping.cancel()
                seeding.cancel()
        await store.close()


async def _end(stop: asyncio.Event, server: uvicorn.Server, close_watches: "seeds.Action") -> None:
    await stop.wait()
    log.info("api stops")
    close_watches()
    server.should_exit = True


async def main() -> None:
    settings = ApiSettings()
    logs.set_up(settings.log_level, settings.log_format, "api")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    log.info("api starts", host=settings.api_host, port=settings.api_port)
    await run(settings, stop)


if __name__ == "__main__":
    runner = asyncio.Runner
    if sys.platform != "win32":
        import uvloop

        with runner(loop_factory=uvloop.new_event_loop) as loop_runner:
            loop_runner.run(main())
    else:
        with runner() as loop_runner:
            loop_runner.run(main())
