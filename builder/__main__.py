"""The builder process: keeps its workers running and says how it is."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping

from redis.exceptions import RedisError

from knoll import admin, keys, logs
from knoll.connect import connect
from knoll.errors import StoreUnavailableError
from knoll.job_queue import JobQueue
from knoll.settings import BuilderSettings
from knoll.supervise import Child, keep_running


def workers(builds: int) -> Mapping[str, str]:
    """Name of each worker and the queue it works on."""
    return {"images-1": keys.IMAGE_JOBS, **{f"builds-{number}": keys.BUILD_JOBS for number in range(1, builds + 1)}}


async def serve(settings: BuilderSettings) -> None:
    """Run until SIGTERM or SIGINT."""
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
            for name, queue in workers(settings.build_workers).items():
                command = [sys.executable, "-m", "builder.worker", queue]
                tasks.create_task(keep_running(Child(name, command), stop))
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
    settings = BuilderSettings()
    logs.set_up(settings.log_level, settings.log_format, "builder")
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
