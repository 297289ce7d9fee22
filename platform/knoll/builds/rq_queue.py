"""Hands jobs to the builder: the only place that enqueues to RQ.

A job carries a namespace and a name, as JSON; its id contains the object's uid, so that enqueueing is idempotent.
The queue is RQ's list, which is reordered with `fair_order` whenever a build is added.
"""

import contextlib
from typing import Any

from redis.exceptions import WatchError
from rq import Queue, Retry
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from knoll.builds.blocking_redis import confirmed, connect_blocking
from knoll.builds.fair_order import fair_order
from knoll.messages import builds
from knoll.redis import keys
from knoll.redis.address import parse

SERIALIZER = JSONSerializer
FAILED_SECONDS = 24 * 3600
"""How long RQ remembers a failed job."""

SECONDS = 2.0
"""How long a reply may take with sentinels."""
_TRIES = 5
_OVER = {JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED, JobStatus.FINISHED}


class RqQueue:
    """The queue of builds. Calls block; see `knoll.builds.queue` for an event loop."""

    def __init__(self, redis_url: str, build_timeout_seconds: int) -> None:
        self._redis = connect_blocking(redis_url, SECONDS)
        address = parse(redis_url)
        self._replicas = None if address.asks_for_replicas else address.replicas
        self._builds = Queue(keys.BUILD_JOBS, connection=self._redis, serializer=SERIALIZER)
        # The builder stops a build that takes too long and reports why; RQ's own limit is only a fallback.
        self._build_seconds = build_timeout_seconds + 60

    def build(self, namespace: str, name: str, uid: str) -> None:
        """Enqueue a Build. Raises: StoreUnavailableError."""
        self._enqueue([namespace, name], _job_id(namespace, uid))

    def order(self) -> list[str]:
        """Uids of the queued Builds, the next one first. Raises: StoreUnavailableError."""
        with confirmed(self._redis, 0):
            return [_parts(job_id)[1] for job_id in self._waiting()]

    def close(self) -> None:
        self._redis.close()

    def _enqueue(self, arguments: list[str], job_id: str) -> None:
        # A job that is already in the queue is confirmed as well: an earlier attempt may have failed to.
        with confirmed(self._redis, self._replicas), contextlib.suppress(DuplicateJobError):
            self._forget_if_over(job_id)
            self._builds.enqueue_call(
                builds.BUILD_JOB,
                args=arguments,
                job_id=job_id,
                timeout=self._build_seconds,
                result_ttl=0,
                failure_ttl=FAILED_SECONDS,
                retry=Retry(max=1),
                unique=True,
            )
            self._arrange()

    def _waiting(self) -> list[str]:
        listed: Any = self._redis.lrange(self._builds.key, 0, -1)
        return [job_id.decode() for job_id in listed]

    def _arrange(self) -> None:
        """Reorder the queue; if workers change it meanwhile, it is left until the next build is added."""
        for _ in range(_TRIES):
            with self._redis.pipeline() as untyped:
                pipe: Any = untyped
                pipe.watch(self._builds.key)
                listed = self._waiting()
                stored_turns: Any = self._redis.hgetall(keys.BUILD_TURNS)
                turns = {namespace.decode(): float(value) for namespace, value in stored_turns.items()}
                order = fair_order(((_parts(job_id)[0], job_id) for job_id in listed), turns)
                if order == listed:
                    return
                pipe.multi()
                pipe.delete(self._builds.key)
                pipe.rpush(self._builds.key, *order)
                with contextlib.suppress(WatchError):
                    pipe.execute()
                    return

    def _forget_if_over(self, job_id: str) -> None:
        try:
            job = Job.fetch(job_id, connection=self._redis, serializer=SERIALIZER)
            over = job.get_status() in _OVER
        except (NoSuchJobError, InvalidJobOperation):
            # It was never enqueued, or ended between the two calls.
            return
        if over:
            job.delete()


def _job_id(namespace: str, uid: str) -> str:
    """The RQ job id; neither part contains an underscore."""
    return f"build_{namespace}_{uid}"


def _parts(job_id: str) -> tuple[str, str]:
    """Namespace and uid; the namespace is empty if the id is not one of ours."""
    parts = job_id.split("_")
    return (parts[1], parts[2]) if len(parts) == 3 else ("", job_id)
