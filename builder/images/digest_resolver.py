"""Resolves the images of every Revision in the table `builds.UNRESOLVED` to digests.

An entry is removed once its result is stored, so that another builder continues where one that died has stopped.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog

from builder.images.access import ImageAccess, access_of
from builder.images.built_images import BuiltImages
from builder.images.engine_images import EngineClients, EngineImages, LocalImage
from builder.images.platform_registry import PlatformRegistry
from builder.images.shared_answers import SharedAnswers
from knoll.auth import registry_secrets
from knoll.auth.registry_auth import Credential
from knoll.concurrency.backoff import Backoff
from knoll.messages import builds
from knoll.process.settings import BuilderSettings
from knoll.redis.client import RedisClient
from knoll.store.protocol import Store
from knoll.tables.protocol import Reset, Table
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import ImageError, NotFoundError, RuntimeUnavailableError, StoreUnavailableError
from knoll.values.json import Json

log = structlog.get_logger()

MAX_LOOK_UPS = 8
"""Concurrent look-ups: a slow registry delays few look-ups of other registries."""


class DigestResolver:
    """Looks up digests, in one event loop."""

    def __init__(
        self,
        settings: BuilderSettings,
        redis: RedisClient,
        store: Store,
        registry: PlatformRegistry | None = None,
    ) -> None:
        """
        Args:
            redis, store: closed by the caller.
            registry: the platform's, on several machines.
        """
        self._registry = registry
        self._settings = settings
        self._store = store
        self._built = BuiltImages(redis)
        self._unresolved: Table[builds.Unresolved] = RedisTable(redis, builds.UNRESOLVED, builds.Unresolved)
        self.answers: Table[builds.Resolution] = RedisTable(redis, builds.RESOLUTIONS, builds.Resolution)
        self._running: set[str] = set()
        self._slots = asyncio.Semaphore(MAX_LOOK_UPS)
        self._engine = EngineClients(settings.docker_socket)
        self._shared = SharedAnswers()

    async def run(self) -> None:
        """Run until cancelled; continues after Redis or the engine was unavailable."""
        self._running.clear()
        try:
            async with asyncio.TaskGroup() as group:
                async for update in self._unresolved.follow():
                    entries = update.entries if isinstance(update, Reset) else {update.field: update.value}
                    for uid, request in entries.items():
                        if request and uid not in self._running:
                            self._running.add(uid)
                            group.create_task(self._answer_until_done(uid, request))
        finally:
            self._engine.close()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Wait for the running look-ups, and start no others inside of the block."""
        acquired = 0
        try:
            while acquired < MAX_LOOK_UPS:
                await self._slots.acquire()
                acquired += 1
            yield
        finally:
            self._shared.forget_pins()
            for _ in range(acquired):
                self._slots.release()

    async def _answer_until_done(self, uid: str, request: builds.Unresolved) -> None:
        backoff, is_logged = Backoff(), False
        while True:
            try:
                async with self._slots:
                    await self._answer(uid, request)
                return
            except (StoreUnavailableError, RuntimeUnavailableError) as error:
                if not is_logged:
                    is_logged = True
                    log.warning("look-up delayed", revision=f"{request.namespace}/{request.name}", error=str(error))
            await backoff.wait()

    async def _answer(self, uid: str, request: builds.Unresolved) -> None:
        path = f"{request.namespace}/{request.name}"
        try:
            revision = await self._store.get(kinds.REVISION.id, request.namespace, request.name)
        except NotFoundError:
            revision = None
        if revision and revision["metadata"]["uid"] == uid:
            answer = await self._resolution(revision)
            await self.answers.put(path, answer)
            log.info("images resolved", revision=path, error=answer.error or None)
        # Discarded before the entry is removed from the table: an entry that is added again later is looked up again.
        self._running.discard(uid)
        await self._unresolved.remove(uid)

    async def _resolution(self, revision: Json) -> builds.Resolution:
        meta, spec = revision["metadata"], revision["spec"]
        # Concurrently, so that their reads are sent to Redis together.
        credentials, access = await asyncio.gather(
            registry_secrets.read(self._store, meta["namespace"], spec),
            access_of(self._store, self._built, meta["namespace"]),
        )
        elsewhere = await self._registry.others.images(_images(spec)) if self._registry else None
        by_reference = elsewhere.by_reference if elsewhere else None
        try:
            images, local = await asyncio.to_thread(self._look_up, access, spec, credentials.credentials, by_reference)
            if self._registry:
                # Before the Revision is pinned to it: any machine may start the first instance.
                for image in local:
                    await self._registry.provide(image.id)
        except ImageError as error:
            if elsewhere and elsewhere.silent:
                raise RuntimeUnavailableError(f"{', '.join(elsewhere.silent)} may have it: {error}") from error
            return builds.Resolution(meta["uid"], error=f"{error}{credentials.hint}")
        except (RuntimeUnavailableError, StoreUnavailableError):
            raise
        except Exception as error:
            # An unexpected failure of one image must not end the look-ups of all others.
            log.exception("look-up failed", revision=f"{meta['namespace']}/{meta['name']}")
            return builds.Resolution(meta["uid"], error=f"the look-up failed, see the log of the builder: {error!r}")
        return builds.Resolution(meta["uid"], images=images)

    def _look_up(
        self,
        access: ImageAccess,
        spec: Json,
        credentials: Sequence[Credential],
        elsewhere: Mapping[str, Sequence[LocalImage]] | None,
    ) -> tuple[tuple[builds.Resolved, ...], list[LocalImage]]:
        """Return the digests, and the images among them that no registry of the user's has."""
        with self._engine.borrowed() as engine:
            images = EngineImages(engine, self._settings.platform, access, self._shared, elsewhere)
            resolved = tuple(
                builds.Resolved(
                    container["name"],
                    container["image"],
                    images.resolve(container["image"], container.get("imagePullPolicy", ""), credentials),
                )
                for container in _containers(spec)
            )
            return resolved, list(images.local.values())


def _containers(spec: Json) -> list[Json]:
    return [*spec["containers"], *spec.get("initContainers", [])]


def _images(spec: Json) -> list[str]:
    """Return the images of a spec that an engine may have instead of a registry."""
    return [each["image"] for each in _containers(spec) if each.get("imagePullPolicy") != "Always"]
