"""Jobs of builders on other machines: taken over when a builder has died, left alone while it runs."""

from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus

from builder.maintenance import live_builders, recovery
from knoll.builds.rq_queue import SERIALIZER, RqQueue
from knoll.redis import keys

pytestmark = pytest.mark.redis


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    client.close()


def started(redis: Redis, redis_url: str, host: str) -> Job:
    """A job that a worker of a host has started."""
    enqueued = RqQueue(redis_url, 60)
    enqueued.build("default", "shop", "1234")
    enqueued.close()
    queue = Queue(keys.BUILD_JOBS, connection=redis, serializer=SERIALIZER)
    job_id = redis.lpop(queue.key)
    assert isinstance(job_id, bytes)
    job = Job.fetch(job_id.decode(), connection=redis, serializer=SERIALIZER)
    worker = recovery.worker_name(host, (7, 100), keys.BUILD_JOBS)
    with redis.pipeline() as pipe:
        job.prepare_for_execution(worker, pipe)
        Execution.create(job, ttl=600, pipeline=pipe)
        pipe.execute()
    job.set_status(JobStatus.STARTED)
    return job


def recovered(redis: Redis) -> int:
    return recovery.recover(redis, keys.BUILD_JOBS, "here", lambda hosts: live_builders.live(redis, hosts))


def test_the_job_of_a_builder_that_does_not_report_is_queued_again_once(redis: Redis, redis_url: str) -> None:
    job = started(redis, redis_url, "there")
    assert recovered(redis) == 1
    assert Queue(keys.BUILD_JOBS, connection=redis, serializer=SERIALIZER).job_ids == [job.id]
    assert recovered(redis) == 0


def test_the_job_of_a_builder_that_runs_is_left_alone(redis: Redis, redis_url: str) -> None:
    started(redis, redis_url, "there")
    live_builders.beat(redis, "there")
    assert recovered(redis) == 0
    assert redis.ttl(keys.live_builder("there")) in range(1, live_builders.LIFE_SECONDS + 1)


def test_without_several_machines_the_list_of_workers_counts(redis: Redis, redis_url: str) -> None:
    started(redis, redis_url, "there")
    assert recovery.recover(redis, keys.BUILD_JOBS, "here") == 1
