"""The RQ entry point. Thin: reads the Build, carries it out, and writes its progress to a table.

A failure that the user caused (a step that fails) is a result, not an exception: RQ retries a job only when its worker
died, or when Redis or the engine was unavailable.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from builder.build import buildkit, buildx, docker_config
from builder.build.image_builder import BuildFailure, BuiltResult, ImageBuilder
from builder.build.lifecycle import finish, start
from builder.build.progress_reporter import ProgressReporter
from builder.images.access import access_of
from builder.images.built_images import BuiltImages
from builder.images.other_engines import OtherEngines
from builder.images.platform_registry import PlatformRegistry
from knoll.auth import registry_secrets
from knoll.builds.build_log import BuildLogWriter
from knoll.messages import builds
from knoll.process.settings import BuilderSettings
from knoll.process.supervise import end_with_parent
from knoll.redis import keys
from knoll.redis.client import RedisClient, connect
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.tables.protocol import Table
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import BuildKitUnavailableError, ImageError, KnollError, NotFoundError, SourceError
from knoll.values.json import Json

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BuildContext:
    """Settings and connections of a job."""

    settings: BuilderSettings
    redis: RedisClient
    store: Store
    clock: Callable[[], float] = time.time

    @property
    def progress(self) -> Table[builds.BuildProgress]:
        return RedisTable(self.redis, builds.BUILDS, builds.BuildProgress)


_settings = functools.cache(BuilderSettings.or_exit)
"""Read before the workers are forked (`load`): read in each of them, they would take 3 MB in each."""


def load() -> BuilderSettings:
    """Return the settings of the jobs of this process and of its forks."""
    return _settings()


@contextlib.asynccontextmanager
async def build_context() -> AsyncIterator[BuildContext]:
    settings = _settings()
    redis = connect(settings.redis_url, "builder")
    try:
        yield BuildContext(settings, redis, RedisStore(redis, keyring=settings.keyring))
    finally:
        await redis.aclose()


def build(namespace: str, name: str) -> None:
    """Carry out a Build in a process of its own, which ends with its worker; another worker then restarts the Build."""
    end_with_parent()
    asyncio.run(_build(namespace, name))


async def _build(namespace: str, name: str) -> None:
    async with build_context() as context:
        try:
            body = await context.store.get(kinds.BUILD_KIND.id, namespace, name)
        except NotFoundError:
            return
        progress, field = context.progress, f"{namespace}/{name}"
        _, entries = await progress.snapshot()
        before = entries[field][1] if field in entries else None
        started = start(before, body["metadata"]["uid"], context.clock())
        if started is None:
            return
        await progress.put(field, started)
        if started.phase is not builds.BuildPhase.RUNNING:
            return
        await context.redis.execute("HSET", keys.BUILD_TURNS, namespace, started.started)
        ended = await _carry_out(context, body, started)
        if await _superseded(progress, field, started):
            log.warning("build was taken over meanwhile", build=field)
        elif ended is None:
            await progress.remove(field)
        else:
            await progress.put(field, ended)
        log.info("build ended", build=field, phase=ended.phase.value if ended else "Deleted")


async def _superseded(table: Table[builds.BuildProgress], field: str, ours: builds.BuildProgress) -> bool:
    """Return whether another worker has taken over the build, because this one could not reach Redis for a while."""
    _, entries = await table.snapshot()
    return field in entries and (entries[field][1].uid, entries[field][1].attempts) != (ours.uid, ours.attempts)


async def _carry_out(context: BuildContext, body: Json, running: builds.BuildProgress) -> builds.BuildProgress | None:
    """Build, and return how it ended; None when the Build was deleted meanwhile."""
    meta, spec = body["metadata"], body["spec"]
    log_writer = BuildLogWriter(context.redis, meta["namespace"], meta["name"])
    reporter = ProgressReporter(log_writer, context.progress, f"{meta['namespace']}/{meta['name']}", running)

    def failed(reason: str, message: str) -> builds.BuildProgress:
        return finish(running, builds.BuildPhase.FAILED, context.clock(), reason=reason, message=message)

    await reporter.begin()
    seconds = context.settings.build_timeout_seconds
    try:
        async with asyncio.timeout(seconds):
            credentials = await registry_secrets.read(context.store, meta["namespace"], spec)
            build_task = asyncio.create_task(_make(context, meta["namespace"], spec, credentials, reporter))
            deletion = asyncio.create_task(_deleted(context.store, int(meta["resourceVersion"]), meta["uid"]))
            try:
                await asyncio.wait({build_task, deletion}, return_when=asyncio.FIRST_COMPLETED)
                if not build_task.done():
                    return None
                outcome = build_task.result()
            finally:
                for task in (build_task, deletion):
                    task.cancel()
                await asyncio.gather(build_task, deletion, return_exceptions=True)
        if isinstance(outcome, BuildFailure):
            return failed(outcome.reason, f"{outcome.message}{credentials.hint}")
        return finish(running, builds.BuildPhase.SUCCEEDED, context.clock(), digest=outcome.digest, size=outcome.size)
    except SourceError as error:
        await reporter.line(str(error))
        return failed("InvalidSource", str(error))
    except (ImageError, BuildKitUnavailableError) as error:
        await reporter.line(str(error))
        return failed("BuildFailed", str(error))
    except TimeoutError:
        return failed("TimedOut", f"the build took longer than {seconds} s")
    finally:
        await reporter.end()


async def _make(
    context: BuildContext,
    namespace: str,
    spec: Json,
    credentials: registry_secrets.RegistryCredentials,
    reporter: ProgressReporter,
) -> BuiltResult | BuildFailure:
    """Make the image, for its namespace, and push it to its registry if the Build asks for it."""
    settings = context.settings
    await asyncio.to_thread(buildkit.prepare_client, settings)
    access = await access_of(context.store, BuiltImages(context.redis), namespace)
    with docker_config.folder(credentials.credentials) as environment:
        environment = {**environment, "BUILDX_CONFIG": str(buildkit.client_folder(settings))}

        async def docker(*arguments: str, archive: Path | None = None) -> str:
            code, reason = await buildx.run(arguments, archive, settings.docker_socket, reporter.line, environment)
            return reason if code else ""

        async with contextlib.AsyncExitStack() as stack:
            registry = None
            if settings.node and settings.registry:
                others = OtherEngines(settings, context.redis)
                stack.push_async_callback(others.close)
                registry = PlatformRegistry(settings, context.redis, others)
            builder = ImageBuilder(
                settings, context.redis, context.store, access, docker, reporter, namespace, spec, registry
            )
            return await builder.make()


async def _deleted(store: Store, since: int, uid: str) -> None:
    """Wait until the Build is deleted."""
    while True:
        try:
            async for event in store.watch(since, {kinds.BUILD_KIND.id}):
                since = event.version
                leaving = event.type == "DELETED" or "deletionTimestamp" in event.body["metadata"]
                if leaving and event.body["metadata"]["uid"] == uid:
                    return
        except KnollError:
            # The history was trimmed, or Redis was unavailable: compare with the current list.
            listing = await store.list(kinds.BUILD_KIND.id)
            if all(item["metadata"]["uid"] != uid for item in listing.items):
                return
            since = listing.version
