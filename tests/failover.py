"""Four writers, two contenders for a lease and two informers while a primary fails, and a check of what they observed.

Each has a thread, an event loop and a client of its own; with simulated machines half of them are on the machine of the
first primary, the others on the second one.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from knoll.redis import keys
from knoll.redis.client import RedisClient, connected
from knoll.redis.lease import Lease
from knoll.redis.streams import entry_of, version_of
from knoll.store.informer import Informer
from knoll.store.redis_store import RedisStore
from knoll.store.rules import Record
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import KnollError, StoreUnavailableError
from tests.redis_group import RedisGroup, enter, running
from tests.waiting import eventually, eventually_sync

Kind = Literal["kill", "freeze", "thaw", "partition"]
"""`thaw`: a frozen primary resumes when another server is being promoted, and a replica still follows it."""
CM = "configmaps"
WRITERS = 4
HISTORY = 1_000_000
_PAUSE = 0.02


class Value(msgspec.Struct, frozen=True):
    """A value of the table that the writers write."""

    number: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One acknowledged write of an object."""

    writer: int
    number: int
    version: int
    began: float
    ended: float


@dataclass
class Observations:
    """What all clients observed."""

    writes: list[Acknowledged] = field(default_factory=list)
    puts: dict[int, int] = field(default_factory=dict)
    """Writer to the number of its last acknowledged value in the table."""
    refused: int = 0
    duties: list[tuple[float, float]] = field(default_factory=list)
    """When each term as a leader began and ended."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one fail-over."""

    acknowledged: int
    lost: int
    """Acknowledged writes that are missing in the history of the new primary."""
    versions_twice: int
    """Versions that two acknowledged writes have."""
    went_back: int
    """Versions after the fail-over that are not above all those before it."""
    lost_puts: int
    led_twice: int
    """Terms of the lease that overlap."""
    terms: int
    unavailable_seconds: float
    """Longest time without an acknowledged write, of the writers that reach the majority."""
    refused: int


class _Client(threading.Thread):
    """A thread with a client of its own."""

    def __init__(self, url: str, namespace: str, work: Callable[[RedisClient], Awaitable[None]]) -> None:
        super().__init__(daemon=True)
        self._url, self._namespace, self._work = url, namespace, work
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            if self._namespace:
                enter(self._namespace)
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        if self._loop is not None and self._task is not None and self.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self.join(30)
        if self.error is not None:
            raise self.error
        assert not self.is_alive()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with connected(self._url, "test") as redis:
            await self._work(redis)


def body(writer: int, number: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "a", "name": f"w{writer}", "uid": f"u{writer}"}, "data": {"n": str(number)}}


class FailOver:
    """Clients of a group while its primary fails."""

    def __init__(self, group: RedisGroup, replicas: int = 1) -> None:
        self.group = group
        self.seen = Observations()
        self._url = group.url(replicas)
        self._informers: list[dict[str, str]] = []
        self._clients: list[_Client] = []
        self._base = int(time.time())

    @contextmanager
    def clients(self) -> Iterator[None]:
        """Run all clients during the block."""
        for number in range(WRITERS):
            self._start(number, lambda redis, number=number: self._write(redis, number))  # type: ignore[misc]
        for number in range(2):
            self._start(number * 2, lambda redis, number=number: self._contend(redis, number))  # type: ignore[misc]
            self._start(number * 2, self._inform)
        try:
            yield
        finally:
            for client in self._clients:
                client.end()

    def _start(self, number: int, work: Callable[[RedisClient], Awaitable[None]]) -> None:
        machines = self.group.machines
        client = _Client(self._url, machines.namespace(number // 2) if machines else "", work)
        self._clients.append(client)
        client.start()

    async def _write(self, redis: RedisClient, writer: int) -> None:
        store, table = RedisStore(redis, history=HISTORY), RedisTable(redis, "failover", Value)
        number = 0
        while True:
            number += 1
            began = time.monotonic()
            try:
                # Its result is unknown when it raises; the next write replaces any value.
                stored = await (
                    store.create(CM, body(writer, number)) if number == 1 else self._next(store, writer, number)
                )
            except StoreUnavailableError:
                self.seen.refused += 1
                await asyncio.sleep(_PAUSE)
                continue
            except KnollError:  # a create that had happened, a conflict with an own write
                continue
            version = int(stored["metadata"]["resourceVersion"])
            self.seen.writes.append(Acknowledged(writer, number, version, began, time.monotonic()))
            if number % 10 == 0:
                try:
                    await table.put(str(writer), Value(number))
                    self.seen.puts[writer] = number
                except StoreUnavailableError:
                    self.seen.refused += 1

    async def _next(self, store: RedisStore, writer: int, number: int) -> dict[str, Any]:
        return await store.update(CM, body(writer, number))

    async def _contend(self, redis: RedisClient, number: int) -> None:
        async def duty() -> None:
            began = time.monotonic()
            try:
                await asyncio.Event().wait()
            finally:
                self.seen.duties.append((began, time.monotonic()))

        await Lease(redis, "controllers", f"c{number}", ttl=2.0).lead(duty)

    async def _inform(self, redis: RedisClient) -> None:
        store = RedisStore(redis)
        informer = Informer(store, CM)
        copy: dict[str, str] = {}
        self._informers.append(copy)

        def changed(change: Any) -> None:
            if change.new is None:
                copy.pop(change.key, None)
            else:
                copy[change.key] = change.new["metadata"]["resourceVersion"]

        informer.subscribe(changed)
        await informer.run()

    def wait_for_writes(self, count: int, within: float = 30.0) -> None:
        """Wait until each writer that reaches the majority has `count` more acknowledged writes."""
        reaching = range(WRITERS) if self.group.machines is None else range(WRITERS // 2, WRITERS)
        before = {writer: self._number_of(writer) for writer in reaching}
        eventually_sync(
            lambda: all(self._number_of(writer) >= before[writer] + count for writer in reaching),
            within,
            "acknowledged writes",
        )

    def _number_of(self, writer: int) -> int:
        return sum(write.writer == writer for write in self.seen.writes)

    def fail(self, kind: Kind) -> float:
        """Make the primary fail until another one acknowledges writes, and let it come back; return when it failed."""
        group, primary = self.group, self.group.primary()
        failed = time.monotonic()
        if kind == "partition":
            assert group.machines is not None
            group.machines.plug(primary, connected=False)
        else:
            group.signal(primary, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        if kind == "thaw":
            eventually_sync(lambda: group.is_promoted(other_than=primary), 30, "a promotion")
            group.signal(primary, signal.SIGCONT)
        self.wait_for_writes(20)
        assert group.primary() != primary
        if kind == "partition":
            assert group.machines is not None
            group.machines.plug(primary, connected=True)
        elif kind == "kill":
            # As a service manager starts it: configured as a primary until sentinels reconfigure it.
            group.start_server(primary)
        elif kind == "freeze":
            group.signal(primary, signal.SIGCONT)
        eventually_sync(lambda: group.replicas_of(group.primary()) == 2, 60, "the old primary is a replica")
        self.wait_for_writes(20)
        return failed

    async def outcome(self, failed: float) -> Outcome:
        """Compare acknowledged writes with the stored data, after all clients have ended."""
        writes = sorted(self.seen.writes, key=lambda write: write.ended)
        async with connected(self._url, "test") as redis:
            replied = await eventually(lambda: _answer(redis.execute("XRANGE", keys.EVENTS, "-", "+")))
            table = (await RedisTable(redis, "failover", Value).snapshot())[1]
        history = {version_of(entry_id): fields for entry_id, fields in map(entry_of, replied)}
        versions = [write.version for write in writes]
        before = [write.version for write in writes if write.ended < failed]
        after = [write.version for write in writes if write.began > failed + 1]
        reaching = [write for write in writes if self.group.machines is None or write.writer >= WRITERS // 2]
        terms = sorted(self.seen.duties)
        return Outcome(
            acknowledged=len(writes),
            lost=sum(not _is_in(history, write) for write in writes),
            versions_twice=len(versions) - len(set(versions)),
            went_back=sum(version <= max(before) for version in after),
            lost_puts=sum(
                table[str(writer)][1].number < number if str(writer) in table else 1
                for writer, number in self.seen.puts.items()
            ),
            led_twice=sum(later[0] < earlier[1] for earlier, later in pairwise(terms)),
            terms=len(terms),
            unavailable_seconds=max(later.ended - earlier.ended for earlier, later in pairwise(reaching)),
            refused=self.seen.refused,
        )

    async def informers_are_right(self) -> bool:
        """Whether both informers have the same objects as a new list. Writers must have ended, informers not."""
        async with connected(self._url, "test") as redis:
            listing = await RedisStore(redis).list(CM)
        expected = {f"a/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in listing.items}
        return len(self._informers) == 2 and all(copy == expected for copy in self._informers)

    def end_writers(self) -> None:
        for client in self._clients[:WRITERS]:
            client.end()


async def _answer(reply: Awaitable[Any]) -> Any:
    try:
        return await reply
    except StoreUnavailableError as error:
        raise AssertionError(str(error)) from error


def _is_in(history: dict[int, dict[bytes, bytes]], write: Acknowledged) -> bool:
    fields = history.get(write.version)
    if fields is None:
        return False
    event = Record(write.version, "MODIFIED", CM, fields[b"e"]).event()
    return orjson.dumps(event.body["data"]) == orjson.dumps({"n": str(write.number)}) and (
        event.body["metadata"]["name"] == f"w{write.writer}"
    )


def fail_over(folder: Path, kind: Kind, server: str = "redis-server") -> Outcome:
    """Run one fail-over of a new group. Raises: AssertionError: it did not recover."""
    with running(folder, simulate_machines=kind == "partition", server=server) as group:
        run = FailOver(group)
        with run.clients():
            run.wait_for_writes(50)
            failed = run.fail(kind)
            run.end_writers()
            asyncio.run(eventually(run.informers_are_right, condition="informers have what a new list has"))
        return asyncio.run(run.outcome(failed))
