"""The queue of builds behind sentinels: an accepted build is not lost with the primary."""

import asyncio
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq import Queue, SimpleWorker

from knoll.builds.blocking_redis import WORKER_SECONDS, connect_blocking
from knoll.builds.queue import JobQueue
from knoll.builds.rq_queue import SERIALIZER
from knoll.redis import keys
from knoll.values.errors import StoreUnavailableError
from tests.conftest import need
from tests.redis_group import RedisGroup, running
from tests.waiting import eventually

pytestmark = pytest.mark.redis


@pytest.fixture
def group(tmp_path: Path) -> Iterator[RedisGroup]:
    need("REDIS", shutil.which("redis-server") is not None)
    with running(tmp_path) as servers:
        yield servers


async def test_accepted_builds_survive_the_primary_and_workers_find_the_next_one(group: RedisGroup) -> None:
    queue = JobQueue(group.url())
    accepted: list[str] = []

    async def add(number: int) -> bool:
        try:
            await queue.build("a", f"b{number}", f"uid{number}")
        except StoreUnavailableError:
            return False
        accepted.append(f"uid{number}")
        return True

    for number in range(10):
        await add(number)
    group.signal(0, signal.SIGKILL)
    assert not await add(10)
    await eventually(lambda: add(10), condition="a build is accepted")
    assert set(accepted) <= set(await eventually(queue.order))
    assert len(accepted) == 11
    await queue.close()

    def take() -> list[str]:
        redis = connect_blocking(group.url())
        builds = Queue(keys.BUILD_JOBS, connection=redis, serializer=SERIALIZER)
        worker = SimpleWorker([builds], connection=redis, serializer=SERIALIZER, worker_ttl=WORKER_SECONDS)
        taken = []
        while dequeued := worker.dequeue_job_and_maintain_ttl(None):
            taken.append(dequeued[0].id)
        redis.close()
        return taken

    assert len(await asyncio.to_thread(take)) == 11


async def test_a_build_that_no_replica_confirms_is_not_accepted(group: RedisGroup) -> None:
    queue = JobQueue(group.url())
    await queue.build("a", "first", "first")
    for number in (1, 2):
        group.signal(number, signal.SIGSTOP)
    with pytest.raises(StoreUnavailableError, match="0 of 1 replicas confirmed"):
        await queue.build("a", "second", "second")
    for number in (1, 2):
        group.signal(number, signal.SIGCONT)

    async def accepted() -> bool:
        try:
            await queue.build("a", "second", "second")
        except StoreUnavailableError:
            return False
        return True

    await eventually(accepted)
    assert await eventually(queue.order) == ["first", "second"]
    await queue.close()


def test_a_url_with_replicas_is_one_for_rq_too(redis_url: str) -> None:
    redis = connect_blocking(f"{redis_url}?replicas=1&health_check_interval=30")
    assert redis.ping()
    assert redis.connection_pool.connection_kwargs["health_check_interval"] == 30
    redis.close()
