"""The builder process: keeps its workers running and says how it is."""

from knoll import lean

lean.begin("cryptography")

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping
from functools import partial

from redis.exceptions import RedisError

from builder import forks, jobs, worker
from knoll import admin, keys, logs
from knoll.connect import connect
from knoll.errors import StoreUnavailableError
from knoll.job_queue import JobQueue
from knoll.settings import BuilderSettings


def processes(settings: BuilderSettings) -> Mapping[str, Callable[[], None]]:
    """Name of each process, and what it does."""
    builds = {f"builds-{number}": keys.BUILD_JOBS for number in range(1, settings.build_workers + 1)}
    queues = {"images-1": keys.IMAGE_JOBS, **builds}
    return {
        "health": lambda: asyncio.run(serve(settings)),
        **{name: partial(worker.main, queue) for name, queue in queues.items()},
    }


async def serve(settings: BuilderSettings) -> None:
    """Say how the builder is, and have it tidy up every now and then, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    redis = connect(settings.redis_url, "builder")

    async def ready() -> str:
        try:
            await redis.ping()
        except RedisError as error:
            return f"redis does not answer: {error}"
        return ""

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_prune(settings, stop))
            tasks.create_task(admin.serve(admin.app(ready), settings.admin_host, settings.builder_admin_port, stop))
    finally:
        await redis.aclose()


async def _prune(settings: BuilderSettings, stop: asyncio.Event) -> None:
    """Ask for it every now and then; a worker does it when its turn comes."""
    queue = JobQueue(settings.redis_url)
    try:
        while not stop.is_set():
            with contextlib.suppress(StoreUnavailableError):
                await queue.prune()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), settings.prune_seconds)
    finally:
        await queue.close()


def main() -> None:
    settings = jobs.load()
    logs.set_up(settings.log_level, settings.log_format, "builder")
    forks.keep_running(processes(settings))


if __name__ == "__main__":
    main()
