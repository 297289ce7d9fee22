"""The builder process: keeps its workers running and reports its health."""

from knoll.process import footprint

footprint.block_unused_imports()

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog
import uvloop

from builder.build import buildkit
from builder.images.digest_resolver import DigestResolver
from builder.maintenance import pressure, pruning
from builder.process import jobs, prefork, worker
from knoll.process import admin, logs
from knoll.process.settings import BuilderSettings
from knoll.redis.client import RedisClient, connect
from knoll.redis.streams import CONTROL_GATHER_SECONDS
from knoll.store.redis_store import RedisStore
from knoll.values.errors import RuntimeUnavailableError, StoreUnavailableError

if TYPE_CHECKING:
    from builder.process.one_of_several import OneOfSeveral

log = structlog.get_logger()


def processes(settings: BuilderSettings) -> Mapping[str, Callable[[], None]]:
    """Return the entry point of each process, by name."""
    builds = {f"builds-{number}": worker.main for number in range(1, settings.build_workers + 1)}
    return {"images": lambda: uvloop.run(serve(settings)), **builds}


async def serve(settings: BuilderSettings) -> None:
    """Look up digests, clean up at intervals and report health, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    redis = connect(settings.redis_url, "builder", gather_seconds=CONTROL_GATHER_SECONDS)
    several = _one_of_several(settings, redis)
    store = RedisStore(redis, keyring=settings.keyring)
    resolver = DigestResolver(settings, redis, store, several.registry if several else None)

    async def ready() -> str:
        try:
            await redis.execute("PING")
        except StoreUnavailableError as error:
            return str(error)
        return ""

    try:
        async with asyncio.TaskGroup() as tasks:
            duties = several.duties(resolver) if several else [resolver.run()]
            loops = [tasks.create_task(duty) for duty in (*duties, _prune(settings, redis, resolver, several))]
            if settings.buildkit_image:
                loops.append(tasks.create_task(buildkit.Daemon(settings).keep_running()))
            app = admin.app(ready, several.routes if several else ())
            await admin.serve(app, settings.admin_host, settings.builder_admin_port, stop)
            for task in loops:
                task.cancel()
    finally:
        if several:
            await several.close()
        await redis.aclose()


def _one_of_several(settings: BuilderSettings, redis: RedisClient) -> "OneOfSeveral | None":
    if not (settings.node and settings.registry):
        return None
    from builder.process.one_of_several import OneOfSeveral

    return OneOfSeveral(settings, redis)


async def _prune(
    settings: BuilderSettings, redis: RedisClient, resolver: DigestResolver, several: "OneOfSeveral | None"
) -> None:
    """Clean up at intervals."""
    store, under_pressure = RedisStore(redis, keyring=settings.keyring), False
    while True:
        try:
            # No look-up may pin an image between reading the Revisions and removing pins.
            async with resolver.paused():
                # While the disk is nearly full, build caches are removed too: builds fill them again.
                limits = msgspec.structs.replace(settings, build_cache_bytes=1) if under_pressure else settings
                leftovers = several.leftovers if several else None
                needs = await pruning.prune(limits, redis, store, resolver.answers, leftovers)
            if several:
                await several.pruned(needs)
            if under_pressure:
                await asyncio.to_thread(buildkit.drop_cache, settings)
        except (StoreUnavailableError, RuntimeUnavailableError) as error:
            log.warning("clean-up failed", error=str(error))
        under_pressure = await pressure.wait(settings, store)


def main() -> None:
    settings = jobs.load()
    logs.set_up(settings.log_level, settings.log_format, "builder")
    prefork.keep_running(processes(settings))


if __name__ == "__main__":
    main()
