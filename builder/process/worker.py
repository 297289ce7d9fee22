"""A worker: carries out one Build at a time."""

import os
import socket

import structlog
from rq import Queue, Worker

from builder.build import secret_dirs
from builder.maintenance import live_builders, recovery
from builder.process import jobs
from knoll.builds.blocking_redis import WORKER_SECONDS, connect_blocking
from knoll.builds.rq_queue import SERIALIZER
from knoll.process import logs
from knoll.redis import keys
from knoll.redis.address import parse

log = structlog.get_logger()


def main() -> None:
    """Run until SIGTERM; the current job is completed first.

    Each build runs in a process of its own, which may be killed.
    """
    settings = jobs.load()
    logs.set_up(settings.log_level, settings.log_format, "builder-worker")
    redis = connect_blocking(settings.redis_url)
    host = socket.gethostname()
    ourselves = recovery.process(os.getpid())
    assert ourselves
    if settings.node:
        live_builders.beat(redis, host)  # before it takes a job: `keep` runs in another process
        recovery.recover(redis, keys.BUILD_JOBS, host, lambda hosts: live_builders.live(redis, hosts))
    else:
        recovery.recover(redis, keys.BUILD_JOBS, host)
    secret_dirs.sweep()
    # The modules of a job are loaded here, once, before builds are forked.
    log.debug("worker started", jobs=jobs.__name__)
    worker = Worker(
        [Queue(keys.BUILD_JOBS, connection=redis, serializer=SERIALIZER)],
        name=recovery.worker_name(host, ourselves, keys.BUILD_JOBS),
        connection=redis,
        serializer=SERIALIZER,
        log_job_description=False,
        worker_ttl=WORKER_SECONDS if parse(settings.redis_url).sentinels else None,
    )
    worker.work(logging_level="WARNING")
