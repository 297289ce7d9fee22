"""Handing jobs to the builder: the one place that enqueues to RQ.

A job carries a namespace and a name, as JSON; its id is made of the object's uid, so that asking twice is asking once.
"""

import asyncio

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, Retry
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from knoll import jobs, keys
from knoll.errors import StoreUnavailableError

SERIALIZER = JSONSerializer
FAILED_SECONDS = 24 * 3600
"""How long RQ remembers a failed job."""

_OVER = {JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED, JobStatus.FINISHED}


class JobQueue:
    """Enqueues builds; may be used from an event loop (the client blocks, so a thread does it)."""

    def __init__(self, redis_url: str, build_timeout_seconds: int = 1800) -> None:
        self._redis = Redis.from_url(redis_url)
        self._builds = Queue(keys.BUILD_JOBS, connection=self._redis, serializer=SERIALIZER)
        # The builder ends a build that takes too long, cleanly and with a reason; RQ's own limit is only its net.
        self._build_seconds = build_timeout_seconds + 60

    async def build(self, namespace: str, name: str, uid: str) -> None:
        """Ask for a Build. Raises: StoreUnavailableError."""
        await asyncio.to_thread(self._enqueue, [namespace, name], f"build-{uid}")

    async def close(self) -> None:
        await asyncio.to_thread(self._redis.close)

    def _enqueue(self, words: list[str], job_id: str) -> None:
        try:
            self._forget_if_over(job_id)
            self._builds.enqueue_call(
                jobs.BUILD_JOB,
                args=words,
                job_id=job_id,
                timeout=self._build_seconds,
                result_ttl=0,
                failure_ttl=FAILED_SECONDS,
                retry=Retry(max=1),
                unique=True,
            )
        except DuplicateJobError:
            return
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise StoreUnavailableError(f"the job queue does not answer: {error}") from error

    def _forget_if_over(self, job_id: str) -> None:
        try:
            job = Job.fetch(job_id, connection=self._redis, serializer=SERIALIZER)
            over = job.get_status() in _OVER
        except (NoSuchJobError, InvalidJobOperation):
            # It was never there, or ended between the two questions.
            return
        if over:
            job.delete()
