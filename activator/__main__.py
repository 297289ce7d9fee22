"""The activator process: settings, logs, tables, reports, ports, and a graceful end."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

import structlog
import uvloop

from activator import following, listeners, metrics
from activator.gateway import Gateway
from activator.reporter import Reporter
from knoll import admin, logs
from knoll.connect import connected
from knoll.redis_tables import RedisTable
from knoll.scaling import ENDPOINTS, RevisionEndpoints
from knoll.settings import ActivatorSettings
from knoll.traffic import ROUTING, RouteEntry

log = structlog.get_logger()


async def run(settings: ActivatorSettings, sockets: list[socket.socket], stop: asyncio.Event) -> None:
    """Carry requests until `stop` is set, then let those that are there end."""
    gateway = Gateway(f"{socket.gethostname()}-{os.getpid()}")
    ports = listeners.Listeners(gateway)
    async with connected(settings.redis_url, "knoll-activator") as redis:
        followers = following.followers(
            gateway, RedisTable(redis, ROUTING, RouteEntry), RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        )
        reporter = Reporter(gateway, redis, settings.report_seconds)

        async def ready() -> str:
            return "" if all(follower.synced for follower in followers) else "waiting for the tables in Redis"

        app = admin.app(ready, metrics=lambda: metrics.exposition(gateway))
        runs = [*(follower.run() for follower in followers), reporter.run()]
        background = [asyncio.create_task(each) for each in runs]
        ending = asyncio.Event()
        background.append(
            asyncio.create_task(admin.serve(app, settings.admin_host, settings.activator_admin_port, ending))
        )
        for task in background:  # a bug that ends one of them ends the process: its supervisor starts it again
            task.add_done_callback(lambda _: stop.set())
        gateway.start()
        numbers = [each.getsockname()[1] for each in sockets]
        await ports.open(sockets)
        log.info("activator ready", ports=numbers)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        await stop.wait()
        ports.close()
        if not await gateway.drain(settings.drain_seconds):
            log.warning("requests broken off", connections=len(gateway.connections))
        await gateway.stop()
        ending.set()
        await _end(background)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    admin_task = tasks.pop()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(admin_task), 6)
    for task in (*tasks, admin_task):
        task.cancel()
    for result in await asyncio.gather(*tasks, admin_task, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _main(settings: ActivatorSettings, sockets: list[socket.socket]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(settings, sockets, stop)


def main() -> None:
    """Entry point of `python -m activator`."""
    settings = ActivatorSettings()
    logs.set_up(settings.log_level, settings.log_format, "activator")
    listeners.more_files()
    try:
        sockets = [listeners.bind(settings.activator_host, int(port)) for port in settings.activator_ports.split(",")]
    except (OSError, ValueError) as error:
        log.error("activator cannot start", error=str(error))
        sys.exit(1)
    uvloop.run(_main(settings, sockets))


if __name__ == "__main__":
    main()
