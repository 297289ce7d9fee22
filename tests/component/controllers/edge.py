"""The processes around the controllers, on a real Redis: a builder, an autoscaler and activators that follow a script.

Like the real processes, they repeat calls to which Redis did not respond: on a busy machine even connecting may take
too long.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from redis import Redis as Blocking
from rq.job import Job
from rq.serializers import JSONSerializer

from api.controllers.engine.tables import Tables
from api.controllers.run import tables_on
from knoll.concurrency.backoff import until_available
from knoll.messages import builds
from knoll.messages.builds import BuildPhase, BuildProgress, Resolution, Resolved
from knoll.messages.scale import ScaleStatus, StartFailure
from knoll.redis import keys
from knoll.redis.client import RedisClient, connect, connected
from knoll.store.redis_store import RedisStore
from knoll.tables.protocol import Reset
from knoll.values import kinds
from knoll.values.errors import StoreUnavailableError
from knoll.values.json import Json

SHA = "sha256:" + "b" * 64
T = TypeVar("T")


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call of Redis, again while it is unavailable."""
    return await until_available(call, errors=(StoreUnavailableError,))


class Edge:
    """Responds to the controllers through the tables, as the other processes do."""

    def __init__(self, redis: RedisClient, store: RedisStore, url: str) -> None:
        self._redis = redis
        self._store = store
        self._url = url
        self.tables: Tables = tables_on(redis)
        self.missing: set[str] = set()
        """Images that cannot be resolved."""
        self.failing: dict[str, StartFailure] = {}
        """Revisions that do not become ready, and why."""
        self.jobs: list[tuple[str, str]] = []
        """(`resolve` or `build`, name) of everything that the builder was asked for."""
        self.served: dict[str, Any] = {}
        """The routing table as activators have it."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, builder: bool = True, autoscaler: bool = True, activators: int = 1) -> None:
        if builder:
            self._tasks += [asyncio.create_task(self._build()), asyncio.create_task(self._look_up())]
        if autoscaler:
            self._tasks.append(asyncio.create_task(self._scale()))
        for number in range(activators):
            self.start_activator(f"activator-{number}")

    def start_activator(self, name: str, obeys: Callable[[], bool] = lambda: True) -> None:
        """Args: obeys: whether it acknowledges changes at the moment."""
        self._tasks.append(asyncio.create_task(self._route(name, obeys)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _build(self) -> None:
        # A client of its own, because the command blocks its connection.
        async with connected(self._url, "edge-builds") as waiting:
            while True:
                popped = await answered(lambda: waiting.execute("BLPOP", f"rq:queue:{keys.BUILD_JOBS}", 1))
                if popped:
                    namespace, name = await asyncio.to_thread(self._job, popped[1].decode())
                    self.jobs.append(("build", name))
                    await answered(partial(self._image, namespace, name))

    def _job(self, job_id: str) -> tuple[str, str]:
        with Blocking.from_url(self._url) as client:
            job = Job.fetch(job_id, connection=client, serializer=JSONSerializer)
            assert job.func_name == builds.BUILD_JOB
            return tuple(job.args)

    async def _look_up(self) -> None:
        async for news in self.tables.unresolved.follow():
            entries = news.entries if isinstance(news, Reset) else {news.field: news.value}
            for uid, request in entries.items():
                if request:
                    self.jobs.append(("resolve", request.name))
                    await answered(partial(self._resolve, request.namespace, request.name))
                    await answered(partial(self.tables.unresolved.remove, uid))

    async def _resolve(self, namespace: str, name: str) -> None:
        revision = await self._store.get(kinds.REVISION.id, namespace, name)
        containers = revision["spec"]["containers"]
        bad = next((container["image"] for container in containers if container["image"] in self.missing), None)
        answer = Resolution(
            revision["metadata"]["uid"],
            () if bad else tuple(Resolved(c["name"], c["image"], f"r/{c['name']}@{SHA}") for c in containers),
            f'image "{bad}" could not be resolved: MANIFEST_UNKNOWN' if bad else "",
        )
        await self.tables.resolutions.put(f"{namespace}/{name}", answer)

    async def _image(self, namespace: str, name: str) -> None:
        build = await self._store.get(kinds.BUILD_KIND.id, namespace, name)
        done = BuildProgress(
            build["metadata"]["uid"],
            BuildPhase.SUCCEEDED,
            digest=f"r/i@{SHA}",
            size=7,
            started=1e9,
            finished=1e9 + 5,
            attempts=1,
        )
        await self.tables.builds.put(f"{namespace}/{name}", done)

    async def _scale(self) -> None:
        listing = await answered(lambda: self._store.list(kinds.REVISION.id))
        for revision in listing.items:
            await answered(partial(self._start, revision))
        async for event in self._store.watch(listing.version, {kinds.REVISION.id}):
            if event.type != "DELETED":
                await answered(partial(self._start, event.body))

    async def _start(self, revision: Json) -> None:
        meta = revision["metadata"]
        if not (revision.get("status") or {}).get("containerStatuses"):
            return
        failure = self.failing.get(meta["name"])
        status = ScaleStatus(
            meta["uid"], desired=1, actual=0 if failure else 1, initial_reached=failure is None,
            active="Unknown" if failure else "True", active_reason="Queued" if failure else "", failure=failure,
        )  # fmt: skip
        await self.tables.scale.put(f"{meta['namespace']}/{meta['name']}", status)

    async def _route(self, name: str, obeys: Callable[[], bool]) -> None:
        acknowledged = 0

        async def live() -> None:
            """A heartbeat each second, as activators send it."""
            while True:
                await asyncio.sleep(1)
                with suppress(StoreUnavailableError):
                    await self.tables.routing.acknowledge(name, acknowledged)

        async with asyncio.TaskGroup() as group:
            group.create_task(live())
            async for change in self.tables.routing.follow():
                if isinstance(change, Reset):
                    self.served = dict(change.entries)
                elif change.value is None:
                    self.served.pop(change.field, None)
                else:
                    self.served[change.field] = change.value
                if obeys():
                    acknowledged = change.version
                    await answered(partial(self.tables.routing.acknowledge, name, acknowledged))


def open_edge(url: str) -> "tuple[RedisClient, RedisStore, Edge]":
    redis = connect(url, "edge")
    store = RedisStore(redis)
    return redis, store, Edge(redis, store, url)
