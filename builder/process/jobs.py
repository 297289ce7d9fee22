"""The RQ entry point. Thin: reads the Build, carries it out, answers through a table.

A failure that the user caused (a step that fails) is an answer, not an exception: RQ tries a job again only when its
worker died or Redis or the engine was away.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis

from builder.build import buildkit, buildx, docker_config
from builder.build.image_builder import BuildFailure, BuiltResult, ImageBuilder
from builder.build.progress_reporter import ProgressReporter
from builder.images.access import access_of
from builder.images.built_images import BuiltImages
from knoll.auth import registry_secrets
from knoll.builds.build_log import BuildLogWriter
from knoll.messages import builds
from knoll.process.settings import BuilderSettings
from knoll.process.supervise import end_with_parent
from knoll.redis import keys
from knoll.redis.client import connect, translate_errors
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.tables.protocol import Table
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import BuildKitUnavailableError, ImageError, KnollError, NotFoundError, SourceError
from knoll.values.json import Json

log = structlog.get_logger()

FAILED = builds.BuildPhase.FAILED
MAX_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a job works with."""

    settings: BuilderSettings
    redis: "Redis"
    store: Store
    clock: Callable[[], float] = time.time

    @property
    def progress(self) -> Table[builds.BuildProgress]:
        return RedisTable(self.redis, builds.BUILDS, builds.BuildProgress)


_settings = functools.cache(BuilderSettings.or_exit)
"""Read before the workers are forked (`load`): read in each, they would take 3 MB in each."""


def load() -> BuilderSettings:
    """The settings that the jobs of this process and of its forks work with."""
    return _settings()


@contextlib.asynccontextmanager
async def workshop() -> AsyncIterator[BuildContext]:
    settings = _settings()
    redis = connect(settings.redis_url, "builder")
    try:
        yield BuildContext(settings, redis, RedisStore(redis, keyring=settings.keyring))
    finally:
        await redis.aclose()


def build(namespace: str, name: str) -> None:
    """Carry out a Build, in a process of the worker's own: without the worker somebody else begins it anew."""
    end_with_parent()
    asyncio.run(_build(namespace, name))


async def _build(namespace: str, name: str) -> None:
    async with workshop() as shop:
        try:
            wanted = await shop.store.get(kinds.BUILD_KIND.id, namespace, name)
        except NotFoundError:
            return
        progress = shop.progress
        field, uid = f"{namespace}/{name}", wanted["metadata"]["uid"]
        _, entries = await progress.snapshot()
        before = entries[field][1] if field in entries and entries[field][1].uid == uid else None
        if before and before.phase.is_final:
            return
        running = builds.BuildProgress(
            uid, builds.BuildPhase.RUNNING, started=shop.clock(), attempts=(before.attempts if before else 0) + 1
        )
        if running.attempts > MAX_ATTEMPTS:
            died = f"the builder died {MAX_ATTEMPTS} times in this build; see its log for how far it came"
            await progress.put(field, _over(running, shop, FAILED, "BuilderDied", died))
            return
        await progress.put(field, running)
        with translate_errors():
            await shop.redis.hset(keys.BUILD_TURNS, namespace, running.started)
        result = await _carry_out(shop, wanted, running)
        if result is None:
            await progress.remove(field)
        else:
            await progress.put(field, result)
        log.info("build over", build=field, phase=result.phase if result else "Deleted")


def _over(
    running: builds.BuildProgress,
    shop: BuildContext,
    phase: builds.BuildPhase,
    reason: str = "",
    message: str = "",
    **more: Any,
) -> builds.BuildProgress:
    return msgspec.structs.replace(running, phase=phase, reason=reason, message=message, finished=shop.clock(), **more)


async def _carry_out(shop: BuildContext, wanted: Json, running: builds.BuildProgress) -> builds.BuildProgress | None:
    """Build, say how it ended; None when the Build was deleted meanwhile."""
    meta, spec = wanted["metadata"], wanted["spec"]
    log_writer = BuildLogWriter(shop.redis, meta["namespace"], meta["name"])
    output = ProgressReporter(log_writer, shop.progress, f"{meta['namespace']}/{meta['name']}", running)
    await output.begin()
    seconds = shop.settings.build_timeout_seconds
    try:
        async with asyncio.timeout(seconds):
            known = await registry_secrets.read(shop.store, meta["namespace"], spec)
            work = asyncio.create_task(_make(shop, meta["namespace"], spec, known, output))
            gone = asyncio.create_task(_deleted(shop.store, int(meta["resourceVersion"]), meta["uid"]))
            try:
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    return None
                result = work.result()
            finally:
                for task in (work, gone):
                    task.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)
        if isinstance(result, BuildFailure):
            return _over(running, shop, FAILED, result.reason, f"{result.message}{known.hint}")
        return _over(running, shop, builds.BuildPhase.SUCCEEDED, digest=result.digest, size=result.size)
    except SourceError as error:
        await output.line(str(error))
        return _over(running, shop, FAILED, "InvalidSource", str(error))
    except (ImageError, BuildKitUnavailableError) as error:
        await output.line(str(error))
        return _over(running, shop, FAILED, "BuildFailed", str(error))
    except TimeoutError:
        return _over(running, shop, FAILED, "TimedOut", f"the build took longer than {seconds} s")
    finally:
        await output.end()


async def _make(
    shop: BuildContext,
    namespace: str,
    spec: Json,
    known: registry_secrets.RegistryCredentials,
    output: ProgressReporter,
) -> BuiltResult | BuildFailure:
    """The image, for its namespace, and in its registry if the Build says so."""
    settings = shop.settings
    await asyncio.to_thread(buildkit.prepare_client, settings)
    access = await access_of(shop.store, BuiltImages(shop.redis), namespace)
    with docker_config.folder(known.credentials) as environment:
        environment = {**environment, "BUILDX_CONFIG": str(buildkit.client_folder(settings))}

        async def docker(*words: str, archive: Path | None = None) -> str:
            code, why = await buildx.run(words, archive, settings.docker_socket, output.line, environment)
            return why if code else ""

        return await ImageBuilder(settings, shop.redis, shop.store, access, docker, output, namespace, spec).make()


async def _deleted(store: Store, since: int, uid: str) -> None:
    """Wait until the Build is deleted."""
    while True:
        try:
            async for event in store.watch(since, kinds.BUILD_KIND.id):
                since = event.version
                leaving = event.type == "DELETED" or "deletionTimestamp" in event.body["metadata"]
                if leaving and event.body["metadata"]["uid"] == uid:
                    return
        except KnollError:
            # The history was trimmed, or Redis is away: look at what there is now.
            listing = await store.list(kinds.BUILD_KIND.id)
            if all(item["metadata"]["uid"] != uid for item in listing.items):
                return
            since = listing.version
