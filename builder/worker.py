"""One worker process: `python -m builder.worker QUEUE`. Started and kept running by `python -m builder`."""

import os
import socket
import sys

import structlog
from redis import Redis
from rq import Queue, SimpleWorker, Worker

from builder import jobs, recovery, scratch
from knoll import keys, logs
from knoll.job_queue import SERIALIZER
from knoll.settings import BuilderSettings

log = structlog.get_logger()


def main(queue_name: str) -> None:
    """Work until SIGTERM, which lets the job at hand end.

    A build gets a process of its own, which may be killed; look-ups are short and share this one.
    """
    settings = BuilderSettings()
    logs.set_up(settings.log_level, settings.log_format, f"builder-{queue_name}")
    redis = Redis.from_url(settings.redis_url)
    host = socket.gethostname()
    ourselves = recovery.process(os.getpid())
    assert ourselves
    recovery.recover(redis, queue_name, host)
    scratch.sweep()
    # Each build runs in a process forked from this one: what a job needs is loaded before, once.
    log.debug("loaded", module=jobs.__name__)
    kind = SimpleWorker if queue_name == keys.IMAGE_JOBS else Worker
    worker = kind(
        [Queue(queue_name, connection=redis, serializer=SERIALIZER)],
        name=recovery.worker_name(host, ourselves, queue_name),
        connection=redis,
        serializer=SERIALIZER,
        log_job_description=False,
    )
    worker.work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1])
