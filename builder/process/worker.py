"""One worker: carries out one Build after the other."""

import os
import socket

import structlog
from redis import Redis
from rq import Queue, Worker

from builder.build import secret_dirs
from builder.maintenance import recovery
from builder.process import jobs
from knoll.builds.queue import SERIALIZER
from knoll.process import logs
from knoll.redis import keys

log = structlog.get_logger()


def main() -> None:
    """Work until SIGTERM, which lets the job at hand end.

    Each build gets a process of its own, which may be killed.
    """
    settings = jobs.load()
    logs.set_up(settings.log_level, settings.log_format, "builder-worker")
    redis = Redis.from_url(settings.redis_url)
    host = socket.gethostname()
    ourselves = recovery.process(os.getpid())
    assert ourselves
    recovery.recover(redis, keys.BUILD_JOBS, host)
    secret_dirs.sweep()
    # What a job needs is loaded before each build is forked from here, once.
    log.debug("begins", jobs=jobs.__name__)
    worker = Worker(
        [Queue(keys.BUILD_JOBS, connection=redis, serializer=SERIALIZER)],
        name=recovery.worker_name(host, ourselves, keys.BUILD_JOBS),
        connection=redis,
        serializer=SERIALIZER,
        log_job_description=False,
    )
    worker.work(logging_level="WARNING")
