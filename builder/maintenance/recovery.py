"""Puts jobs of a dead worker back into their queue at once, instead of after RQ's own deadline."""

import os
from collections.abc import Callable, Container, Iterable
from pathlib import Path

import structlog
from redis import Redis
from rq import Queue, Worker
from rq.exceptions import NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import StartedJobRegistry

from knoll.builds.rq_queue import SERIALIZER

log = structlog.get_logger()

Process = tuple[int, int]
"""Process id, and start time in clock ticks since boot: a restarted container has the same process ids again."""


def worker_name(host: str, process: Process, queue: str) -> str:
    """Return the name of a worker in RQ: it has host and start time, from which its death is detected."""
    return f"{host}.{process[0]}-{process[1]}.{queue}"


def host_of(name: str) -> str:
    """Return the host of a worker."""
    return name.rsplit(".", 2)[0]


def is_dead(
    name: str,
    host: str,
    listed: Container[str],
    alive: Container[Process],
    live_hosts: Container[str] | None = None,
) -> bool:
    """Return whether the worker of that name has died.

    Args:
        listed: names that RQ lists (their keys expire some minutes after a death).
        alive: processes on this host.
        live_hosts: hosts whose builder runs; None if that is unknown, as on a single machine.
    """
    parts = name.rsplit(".", 2)
    if len(parts) == 3 and parts[0] == host:
        pid, _, began = parts[1].partition("-")
        if pid.isdigit() and began.isdigit():
            return (int(pid), int(began)) not in alive
    if live_hosts is not None:
        return host_of(name) not in live_hosts
    return name not in listed


def process(pid: int) -> Process | None:
    """Return a process by its id; None when it has ended, also when its parent has not reaped it yet."""
    try:
        # The second field, the command, may contain anything; after its last bracket there are only numbers.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else (pid, int(fields[19]))


def _alive() -> set[Process]:
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return {alive for alive in map(process, pids) if alive}


def recover(
    redis: "Redis",
    queue_name: str,
    host: str,
    live: Callable[[Iterable[str]], Container[str]] | None = None,
) -> int:
    """Put back every job of a queue that a dead worker had; returns their number.

    The number of attempts of a build is limited by `BuildProgress.attempts`, not by RQ.

    Args: live: on several machines, returns those of some hosts whose builder runs.
    """
    queue = Queue(queue_name, connection=redis, serializer=SERIALIZER)
    workers = {worker.name for worker in Worker.all(queue=queue)}
    alive = _alive()
    put_back, live_hosts = 0, None
    registry = StartedJobRegistry(queue_name, connection=redis, serializer=SERIALIZER)
    started = [_fetch(job_id, redis) for job_id, _ in registry.get_job_and_execution_ids(cleanup=False)]
    if live:
        live_hosts = live({host_of(name) for name in (*workers, *(job.worker_name or "" for job in started if job))})
    for job in started:
        if job and job.worker_name and is_dead(job.worker_name, host, workers, alive, live_hosts):
            registry.remove_executions(job)
            queue.enqueue_job(job)
            put_back += 1
    if not any(not is_dead(name, host, workers, alive, live_hosts) for name in workers):
        put_back += _between_queues(redis, queue)
    if put_back:
        log.warning("jobs of a dead worker requeued", queue=queue_name, jobs=put_back)
    return put_back


def _between_queues(redis: "Redis", queue: Queue) -> int:
    """Put back jobs that a worker took and did not start; only while no live worker could be about to start them."""
    between = IntermediateQueue(queue.key, redis)
    job_ids = between.get_job_ids()
    for job_id in job_ids:
        between.remove(job_id)
        redis.lpush(queue.key, job_id)
    return len(job_ids)


def _fetch(job_id: str, redis: "Redis") -> Job | None:
    try:
        return Job.fetch(job_id, connection=redis, serializer=SERIALIZER)
    except NoSuchJobError:
        return None
