"""One worker: takes jobs of one queue."""

import os
import socket

import structlog
from redis import Redis
from rq import Queue, SimpleWorker, Worker

from builder import jobs, recovery, scratch
from knoll import keys, logs
from knoll.job_queue import SERIALIZER

log = structlog.get_logger()


def main(queue_name: str) -> None:
    """Work until SIGTERM, which lets the job at hand end.

    A build gets a process of its own, which may be killed; look-ups are short and share this one.
    """
    settings = jobs.load()
    logs.set_up(settings.log_level, settings.log_format, f"builder-{queue_name}")
    redis = Redis.from_url(settings.redis_url)
    host = socket.gethostname()
    ourselves = recovery.process(os.getpid())
    assert ourselves
    recovery.recover(redis, queue_name, host)
    scratch.sweep()
    # What a job needs is loaded before each build is forked from here, once.
    log.debug("begins", queue=queue_name, jobs=jobs.__name__)
    kind = SimpleWorker if queue_name == keys.IMAGE_JOBS else Worker
    worker = kind(
        [Queue(queue_name, connection=redis, serializer=SERIALIZER)],
        name=recovery.worker_name(host, ourselves, queue_name),
        connection=redis,
        serializer=SERIALIZER,
        log_job_description=False,
    )
    worker.work(logging_level="WARNING")
