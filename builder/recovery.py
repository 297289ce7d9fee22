"""Jobs whose worker died: put them back at once, instead of when RQ's own deadline for them is over."""

import os

import structlog
from redis import Redis
from rq import Queue, Worker
from rq.exceptions import NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import StartedJobRegistry

from knoll.job_queue import SERIALIZER

log = structlog.get_logger()


def worker_name(host: str, pid: int, queue: str) -> str:
    """A worker's name in RQ says where it runs, so that its death can be told."""
    return f"{host}.{pid}.{queue}"


def is_dead(name: str, host: str, known: set[str], alive: set[int]) -> bool:
    """Whether the worker of that name is gone.

    Args:
        known: names that RQ lists (their keys expire some minutes after a death).
        alive: process ids on this host.
    """
    parts = name.rsplit(".", 2)
    if len(parts) == 3 and parts[0] == host and parts[1].isdigit():
        return int(parts[1]) not in alive
    return name not in known


def recover(redis: "Redis", queue_name: str, host: str) -> int:
    """Put back every job of a queue that a dead worker had; returns how many.

    How often a build may be begun again is the build's own count (`BuildProgress.attempts`), not RQ's.
    """
    queue = Queue(queue_name, connection=redis, serializer=SERIALIZER)
    workers = {worker.name for worker in Worker.all(queue=queue)}
    alive = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
    put_back = 0
    registry = StartedJobRegistry(queue_name, connection=redis, serializer=SERIALIZER)
    for job_id, _ in registry.get_job_and_execution_ids(cleanup=False):
        job = _fetch(job_id, redis)
        if job and job.worker_name and is_dead(job.worker_name, host, workers, alive):
            registry.remove_executions(job)
            queue.enqueue_job(job)
            put_back += 1
    if not any(not is_dead(name, host, workers, alive) for name in workers):
        put_back += _between_queues(redis, queue)
    if put_back:
        log.warning("jobs of a dead worker put back", queue=queue_name, jobs=put_back)
    return put_back


def _between_queues(redis: "Redis", queue: Queue) -> int:
    """Jobs that a worker had taken and not begun when it died; only while no worker lives, whose they could be."""
    between = IntermediateQueue(queue.key, redis)
    found = between.get_job_ids()
    for job_id in found:
        between.remove(job_id)
        redis.lpush(queue.key, job_id)
    return len(found)


def _fetch(job_id: str, redis: "Redis") -> Job | None:
    try:
        return Job.fetch(job_id, connection=redis, serializer=SERIALIZER)
    except NoSuchJobError:
        return None
