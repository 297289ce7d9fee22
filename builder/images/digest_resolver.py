"""Look-ups of digests: answers every Revision that the table `jobs.UNRESOLVED` names.

An entry leaves the table when it is answered, so that whoever comes after a builder that died goes on where it was.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from redis.asyncio import Redis

from builder.images.access import Access, access_of
from builder.images.built_images import BuiltImages
from builder.images.engine_images import EngineImages, engine_at
from knoll.auth import registry_secrets
from knoll.auth.registry_auth import Credential
from knoll.concurrency.backoff import Backoff
from knoll.messages import builds
from knoll.process.settings import BuilderSettings
from knoll.store.protocol import Store
from knoll.tables.protocol import Reset, Table
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import ImageError, NotFoundError, RuntimeUnavailableError, StoreUnavailableError
from knoll.values.json import Json

log = structlog.get_logger()

AT_ONCE = 8
"""Look-ups at once: a registry that is slow holds up those that ask it, and few others."""


class DigestResolver:
    """Looks up digests. One event loop only."""

    def __init__(self, settings: BuilderSettings, redis: "Redis", store: Store) -> None:
        """Args: redis, store: stay the caller's."""
        self._settings = settings
        self._store = store
        self._built = BuiltImages(redis)
        self._unresolved: Table[builds.Unresolved] = RedisTable(redis, builds.UNRESOLVED, builds.Unresolved)
        self.answers: Table[builds.Resolution] = RedisTable(redis, builds.RESOLUTIONS, builds.Resolution)
        self._running: set[str] = set()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Answer until cancelled; waits out a Redis or an engine that is away."""
        async with asyncio.TaskGroup() as group:
            async for news in self._unresolved.follow():
                entries = news.entries if isinstance(news, Reset) else {news.field: news.value}
                for uid, wanted in entries.items():
                    if wanted and uid not in self._running:
                        self._running.add(uid)
                        group.create_task(self._answer_until_done(uid, wanted))

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Nothing is looked up meanwhile."""
        taken = 0
        try:
            while taken < AT_ONCE:
                await self._places.acquire()
                taken += 1
            yield
        finally:
            for _ in range(taken):
                self._places.release()

    async def _answer_until_done(self, uid: str, wanted: builds.Unresolved) -> None:
        backoff, told = Backoff(), False
        while True:
            try:
                async with self._places:
                    await self._answer(uid, wanted)
                return
            except (StoreUnavailableError, RuntimeUnavailableError) as error:
                if not told:
                    told = True
                    log.warning("look-up waits", revision=f"{wanted.namespace}/{wanted.name}", error=str(error))
            await backoff.wait()

    async def _answer(self, uid: str, wanted: builds.Unresolved) -> None:
        path = f"{wanted.namespace}/{wanted.name}"
        try:
            revision = await self._store.get(kinds.REVISION.id, wanted.namespace, wanted.name)
        except NotFoundError:
            revision = None
        if revision and revision["metadata"]["uid"] == uid:
            answer = await self._resolution(revision)
            await self.answers.put(path, answer)
            log.info("images resolved", revision=path, error=answer.error or None)
        # Before it leaves the table: asked for again after that, it is looked up again.
        self._running.discard(uid)
        await self._unresolved.remove(uid)

    async def _resolution(self, revision: Json) -> builds.Resolution:
        meta, spec = revision["metadata"], revision["spec"]
        known = await registry_secrets.read(self._store, meta["namespace"], spec)
        access = await access_of(self._store, self._built, meta["namespace"])
        try:
            images = await asyncio.to_thread(_look_up, self._settings, access, spec, known.credentials)
        except ImageError as error:
            return builds.Resolution(meta["uid"], error=f"{error}{known.hint}")
        except RuntimeUnavailableError:
            raise
        except Exception as error:
            # One image that nobody thought of must not end the look-ups of all others, again and again.
            log.exception("look-up failed", revision=f"{meta['namespace']}/{meta['name']}")
            return builds.Resolution(meta["uid"], error=f"the look-up failed, the builder's log says where: {error!r}")
        return builds.Resolution(meta["uid"], images=images)


def _look_up(
    settings: BuilderSettings, access: Access, spec: Json, known: Sequence[Credential]
) -> tuple[builds.Resolved, ...]:
    with engine_at(settings.docker_socket) as engine:
        images = EngineImages(engine, settings.platform, access)
        return tuple(
            builds.Resolved(
                container["name"],
                container["image"],
                images.resolve(container["image"], container.get("imagePullPolicy", ""), known),
            )
            for container in [*spec["containers"], *spec.get("initContainers", [])]
        )
