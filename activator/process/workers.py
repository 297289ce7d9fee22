"""Several worker processes on the same ports: started, restarted when they die, replaced by new ones on SIGHUP.

Each worker has a listening socket of its own on every port (SO_REUSEPORT, so that the kernel spreads connections
evenly), but the parent holds them all: a connection that arrives while a worker is being replaced waits for the new one
instead of being refused. On SIGHUP new workers, which run the program that is installed at that time, are started on
the same sockets; when they are ready, the old ones stop accepting and finish their requests.
"""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from activator.backend.shared_slots import lock_file
from activator.process import metrics
from activator.process.worker import ListeningSockets
from activator.process.worker_channel import LIMIT
from activator.sync import table_followers
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.routing import ROUTING, RouteEntry
from knoll.process import admin
from knoll.process.settings import ActivatorSettings
from knoll.process.supervise import FIRST_PAUSE, next_pause
from knoll.redis.client import connected
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

START_SECONDS = 30.0
METRICS_SECONDS = 2.0


@dataclass(eq=False)
class WorkerProcess:
    """One process."""

    number: int
    index: int
    """The number of its set of sockets."""
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ready: asyncio.Event
    counts: metrics.Counts = field(default_factory=lambda: metrics.total([]))
    """Its counts when they were last requested."""
    metrics_reply: "asyncio.Future[None] | None" = None
    stopping: bool = False

    def send(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


class WorkerSupervisor:
    """The parent process."""

    def __init__(self, settings: ActivatorSettings, ports: Sequence[ListeningSockets]) -> None:
        """Args: ports: listening sockets for each worker."""
        self._settings = settings
        self._ports = ports
        self._slots = lock_file()
        self._workers: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._stopping = False
        self._ended_counts = metrics.total([])
        """Counts of ended workers: a counter must never decrease."""
        self._tables: list[RedisTable[Any]] = []

    async def run(self, stop: asyncio.Event, renew: asyncio.Event) -> None:
        """Run until `stop` is set. Args: renew: set to replace the workers with new ones."""
        async with connected(self._settings.redis_url, "knoll-activators") as redis:
            routing = RedisTable(redis, ROUTING, RouteEntry)
            self._tables = [routing, RedisTable(redis, ENDPOINTS, RevisionEndpoints)]
            names = table_followers.dns_hosts_follower(self._settings, routing)
            naming = None if names is None else asyncio.create_task(names.run())
            if naming is not None:
                naming.add_done_callback(lambda _: stop.set())
            ending = asyncio.Event()
            app = admin.app(self._ready, metrics=self._metrics)
            serving = asyncio.create_task(
                admin.serve(app, self._settings.admin_host, self._settings.activator_admin_port, ending)
            )
            serving.add_done_callback(lambda _: stop.set())
            for index in range(len(self._ports)):
                self._supervise(index)
            replacing = asyncio.create_task(self._replace_workers(renew))
            await stop.wait()
            replacing.cancel()
            await self._end()
            if naming is not None:
                naming.cancel()
                await asyncio.gather(naming, return_exceptions=True)
            ending.set()
            await serving

    async def _end(self) -> None:
        self._stopping = True
        for worker in self._workers:
            self._stop_worker(worker)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop_worker(self, worker: WorkerProcess) -> None:
        worker.stopping = True
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGTERM)

    def _supervise(self, index: int) -> None:
        task = asyncio.create_task(self._run_worker(index))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_worker(self, index: int) -> None:
        """Run a worker; restart it whenever it dies."""
        pause, loop = 0.0, asyncio.get_running_loop()
        while not self._stopping:
            began = loop.time()
            worker = await self._start(index)
            code = await self._relay_messages(worker)
            if worker.stopping or self._stopping:
                return
            pause = next_pause(pause, loop.time() - began) if loop.time() - began < 10 else FIRST_PAUSE
            log.warning("worker died", worker=worker.process.pid, exit_code=code, restart_in_seconds=pause)
            await asyncio.sleep(pause)

    async def _start(self, index: int) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        self._numbers += 1
        ports = self._ports[index]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "activator", "--control", str(theirs.fileno()), "--slots", str(self._slots),
            "--listeners", ports.numbers(), start_new_session=True,
            pass_fds=(theirs.fileno(), self._slots, *(each.fileno() for each in ports.all)),
        )  # fmt: skip
        theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=LIMIT)
        worker = WorkerProcess(self._numbers, index, process, reader, writer, asyncio.Event())
        self._workers.add(worker)
        if self._stopping:
            self._stop_worker(worker)
        return worker

    async def _relay_messages(self, worker: WorkerProcess) -> int:
        """Relay a worker's messages to the others until it has ended; returns its exit code."""
        with contextlib.suppress(ConnectionError):
            while line := await worker.reader.readline():
                message = json.loads(line)
                if "ready" in message:
                    worker.ready.set()
                elif "metrics" in message:
                    worker.counts = message["metrics"]
                    if worker.metrics_reply is not None and not worker.metrics_reply.done():
                        worker.metrics_reply.set_result(None)
                else:
                    self._broadcast(worker, {**message, "worker": worker.number})
        code = await worker.process.wait()
        worker.writer.close()
        self._workers.discard(worker)
        self._ended_counts = metrics.total([self._ended_counts, metrics.ended(worker.counts)])
        # The kernel has released its slots; workers with queued requests must try again.
        self._broadcast(worker, {"lost": worker.number})
        for table in self._tables:
            with contextlib.suppress(StoreUnavailableError):
                await table.leave(f"{socket.gethostname()}-{worker.process.pid}")
        return code

    def _broadcast(self, sender: WorkerProcess, message: dict[str, Any]) -> None:
        for worker in self._workers:
            if worker is not sender:
                worker.send(message)

    async def _replace_workers(self, renew: asyncio.Event) -> None:
        while True:
            await renew.wait()
            renew.clear()
            old = list(self._workers)
            for index in range(len(self._ports)):
                self._supervise(index)
            try:
                async with asyncio.timeout(START_SECONDS):
                    while len(new := [w for w in self._workers if w not in old]) < len(self._ports):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                    for worker in new:
                        await worker.ready.wait()
            except TimeoutError:
                log.error(
                    "worker replacement failed",
                    reason="the new workers did not become ready; the old ones keep running",
                )
                for worker in [w for w in self._workers if w not in old]:
                    self._stop_worker(worker)
                continue
            log.info("workers replaced", workers=[worker.process.pid for worker in new])
            for worker in old:
                self._stop_worker(worker)

    async def _ready(self) -> str:
        ready = sum(worker.ready.is_set() for worker in self._workers)
        missing = len(self._ports) - ready
        return f"waiting for {missing} of {len(self._ports)} workers" if missing > 0 else ""

    async def _metrics(self) -> bytes:
        asked = []
        for worker in self._workers:
            if worker.ready.is_set():
                worker.metrics_reply = asyncio.get_running_loop().create_future()
                worker.send({"metrics": True})
                asked.append(worker.metrics_reply)
        if asked:
            await asyncio.wait(asked, timeout=METRICS_SECONDS)
        return metrics.exposition(metrics.total([self._ended_counts, *(worker.counts for worker in self._workers)]))
