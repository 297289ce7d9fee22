"""Several worker processes on the same ports: started, replaced when they die, taken over by new ones on SIGHUP.

Each worker has a listening socket of its own on every port (SO_REUSEPORT, so that the kernel spreads connections
evenly), but the parent holds them all: what arrives while a worker is being replaced waits for the new one, and nothing
is refused. On SIGHUP new workers, running whatever program is installed by then, are started on the same sockets; when
they are ready the old ones stop accepting and end their requests.
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
    place: int
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ready: asyncio.Event
    counts: metrics.Counts = field(default_factory=lambda: metrics.total([]))
    """What it counted when it was asked last."""
    answer: "asyncio.Future[None] | None" = None
    leaving: bool = False

    def say(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


class WorkerSupervisor:
    """The parent's side."""

    def __init__(self, settings: ActivatorSettings, ports: Sequence[ListeningSockets]) -> None:
        """Args: ports: for each worker its listening sockets."""
        self._settings = settings
        self._ports = ports
        self._slots = lock_file()
        self._workers: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._stopping = False
        self._past = metrics.total([])
        """Counted by workers that are gone: a counter never falls."""
        self._tables: list[RedisTable[Any]] = []

    async def run(self, stop: asyncio.Event, again: asyncio.Event) -> None:
        """Until `stop` is set. Args: again: set to have new workers take over."""
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
            for place in range(len(self._ports)):
                self._keep(place)
            taking_over = asyncio.create_task(self._take_over(again))
            await stop.wait()
            taking_over.cancel()
            await self._end()
            if naming is not None:
                naming.cancel()
                await asyncio.gather(naming, return_exceptions=True)
            ending.set()
            await serving

    async def _end(self) -> None:
        self._stopping = True
        for worker in self._workers:
            self._dismiss(worker)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _dismiss(self, worker: WorkerProcess) -> None:
        worker.leaving = True
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGTERM)

    def _keep(self, place: int) -> None:
        task = asyncio.create_task(self._keep_running(place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_running(self, place: int) -> None:
        """Run a worker in this place; another one whenever it dies by itself."""
        pause, loop = 0.0, asyncio.get_running_loop()
        while not self._stopping:
            began = loop.time()
            worker = await self._start(place)
            code = await self._listen(worker)
            if worker.leaving or self._stopping:
                return
            pause = next_pause(pause, loop.time() - began) if loop.time() - began < 10 else FIRST_PAUSE
            log.warning("worker died, starting another", worker=worker.process.pid, exit_code=code, in_seconds=pause)
            await asyncio.sleep(pause)

    async def _start(self, place: int) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        self._numbers += 1
        ports = self._ports[place]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "activator", "--control", str(theirs.fileno()), "--slots", str(self._slots),
            "--listeners", ports.numbers(), start_new_session=True,
            pass_fds=(theirs.fileno(), self._slots, *(each.fileno() for each in ports.all)),
        )  # fmt: skip
        theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=LIMIT)
        worker = WorkerProcess(self._numbers, place, process, reader, writer, asyncio.Event())
        self._workers.add(worker)
        if self._stopping:
            self._dismiss(worker)
        return worker

    async def _listen(self, worker: WorkerProcess) -> int:
        """Pass on what a worker says to the others, until it is gone."""
        with contextlib.suppress(ConnectionError):
            while line := await worker.reader.readline():
                message = json.loads(line)
                if "ready" in message:
                    worker.ready.set()
                elif "metrics" in message:
                    worker.counts = message["metrics"]
                    if worker.answer is not None and not worker.answer.done():
                        worker.answer.set_result(None)
                else:
                    self._tell(worker, {**message, "worker": worker.number})
        code = await worker.process.wait()
        worker.writer.close()
        self._workers.discard(worker)
        self._past = metrics.total([self._past, metrics.ended(worker.counts)])
        # The kernel has freed its slots; those that wait for one must look again.
        self._tell(worker, {"lost": worker.number})
        for table in self._tables:
            with contextlib.suppress(StoreUnavailableError):
                await table.leave(f"{socket.gethostname()}-{worker.process.pid}")
        return code

    def _tell(self, sender: WorkerProcess, message: dict[str, Any]) -> None:
        for worker in self._workers:
            if worker is not sender:
                worker.say(message)

    async def _take_over(self, again: asyncio.Event) -> None:
        while True:
            await again.wait()
            again.clear()
            old = list(self._workers)
            for place in range(len(self._ports)):
                self._keep(place)
            try:
                async with asyncio.timeout(START_SECONDS):
                    while len(new := [w for w in self._workers if w not in old]) < len(self._ports):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                    for worker in new:
                        await worker.ready.wait()
            except TimeoutError:
                log.error("the new workers did not become ready; the old ones stay")
                for worker in [w for w in self._workers if w not in old]:
                    self._dismiss(worker)
                continue
            log.info("new workers took over", workers=[worker.process.pid for worker in new])
            for worker in old:
                self._dismiss(worker)

    async def _ready(self) -> str:
        ready = sum(worker.ready.is_set() for worker in self._workers)
        missing = len(self._ports) - ready
        return f"waiting for {missing} of {len(self._ports)} workers" if missing > 0 else ""

    async def _metrics(self) -> bytes:
        asked = []
        for worker in self._workers:
            if worker.ready.is_set():
                worker.answer = asyncio.get_running_loop().create_future()
                worker.say({"metrics": True})
                asked.append(worker.answer)
        if asked:
            await asyncio.wait(asked, timeout=METRICS_SECONDS)
        return metrics.exposition(metrics.total([self._past, *(worker.counts for worker in self._workers)]))
