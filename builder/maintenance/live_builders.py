"""Which builders run, on several machines: the jobs of the others are taken over."""

import asyncio
from collections.abc import Container, Iterable
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from builder.maintenance import recovery
from knoll.builds.blocking_redis import connect_blocking
from knoll.concurrency.backoff import Backoff
from knoll.process.settings import BuilderSettings
from knoll.redis import keys

log = structlog.get_logger()

BEAT_SECONDS, CHECK_SECONDS = 3.0, 5.0
LIFE_SECONDS = 15
"""A builder that has not reported for this long is dead."""


def beat(redis: Redis, host: str) -> None:
    """Report that the builder of a host runs."""
    redis.set(keys.live_builder(host), "1", ex=LIFE_SECONDS)


def live(redis: Redis, hosts: Iterable[str]) -> Container[str]:
    """Return those of the hosts whose builder runs."""
    alive = set()
    for host in hosts:
        exists: Any = redis.exists(keys.live_builder(host))
        if exists:
            alive.add(host)
    return alive


async def keep(settings: BuilderSettings, host: str) -> None:
    """Report that this builder runs, and put the jobs of dead ones back into the queue, until cancelled."""
    redis, clock = connect_blocking(settings.redis_url), asyncio.get_running_loop().time
    backoff, checked = Backoff(), clock()
    try:
        while True:
            try:
                await asyncio.to_thread(beat, redis, host)
                if clock() - checked >= CHECK_SECONDS:
                    checked = clock()
                    await asyncio.to_thread(
                        recovery.recover, redis, keys.BUILD_JOBS, host, lambda hosts: live(redis, hosts)
                    )
                backoff.reset()
            except RedisError as error:
                log.warning("builders not checked", error=str(error))
                await backoff.wait()
                continue
            await asyncio.sleep(BEAT_SECONDS)
    finally:
        redis.close()
