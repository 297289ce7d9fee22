"""Jobs whose worker died: put them back at once, instead of when RQ's own deadline for them is over."""

import os
from collections.abc import Container
from pathlib import Path

import structlog
from redis import Redis
from rq import Queue, Worker
from rq.exceptions import NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import StartedJobRegistry

from knoll.builds.queue import SERIALIZER

log = structlog.get_logger()

Process = tuple[int, int]
"""Id of a process and when it began, in clock ticks since boot: a container begun again has the same ids again."""


def worker_name(host: str, process: Process, queue: str) -> str:
    """A worker's name in RQ says where it runs and since when, so that its death can be told."""
    return f"{host}.{process[0]}-{process[1]}.{queue}"


def is_dead(name: str, host: str, known: Container[str], alive: Container[Process]) -> bool:
    """Whether the worker of that name is gone.

    Args:
        known: names that RQ lists (their keys expire some minutes after a death).
        alive: processes on this host.
    """
    parts = name.rsplit(".", 2)
    if len(parts) == 3 and parts[0] == host:
        pid, _, began = parts[1].partition("-")
        if pid.isdigit() and began.isdigit():
            return (int(pid), int(began)) not in alive
    return name not in known


def process(pid: int) -> Process | None:
    """A process by its id; None when it has ended, though nobody may have asked how yet."""
    try:
        # The second field, the command, may hold anything; what follows its last bracket are numbers.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else (pid, int(fields[19]))


def _alive() -> set[Process]:
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return {found for found in map(process, pids) if found}


def recover(redis: "Redis", queue_name: str, host: str) -> int:
    """Put back every job of a queue that a dead worker had; returns how many.

    How often a build may be begun again is the build's own count (`BuildProgress.attempts`), not RQ's.
    """
    queue = Queue(queue_name, connection=redis, serializer=SERIALIZER)
    workers = {worker.name for worker in Worker.all(queue=queue)}
    alive = _alive()
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
