"""Whether the engine's disk is nearly full, so that images and caches are to be removed now."""

import asyncio

import structlog
from docker.errors import DockerException
from requests.exceptions import RequestException

from builder.images import engine_at
from knoll import disk, kinds
from knoll.config import security
from knoll.errors import KnollError, NotFoundError
from knoll.resources.labels import SYSTEM_NAMESPACE
from knoll.settings import BuilderSettings
from knoll.store import Store

log = structlog.get_logger()

LOOK_SECONDS = 30.0
LEAST_SECONDS = 60.0
"""Between two clean-ups, however full the disk is."""


async def wait(settings: BuilderSettings, store: Store) -> bool:
    """Wait until the next clean-up is due; returns whether that is because the disk is nearly full."""
    clock = asyncio.get_running_loop().time
    due, least = clock() + settings.prune_seconds, clock() + LEAST_SECONDS
    while (now := clock()) < due:
        await asyncio.sleep(min(LOOK_SECONDS, due - now))
        if clock() >= least and await is_pressed(settings, store):
            return True
    return False


async def is_pressed(settings: BuilderSettings, store: Store) -> bool:
    """Whether less is free than `disk-pressure-free` says; False when that cannot be found out."""
    try:
        data = (await store.get(kinds.CONFIG_MAP.id, SYSTEM_NAMESPACE, security.NAME)).get("data") or {}
        threshold = security.parse(data).disk_pressure_free
    except NotFoundError:
        threshold = security.SecurityConfig().disk_pressure_free
    except KnollError as error:
        log.warning("free space not compared", error=str(error))
        return False
    free = await asyncio.to_thread(_free, settings)
    if free is None or not threshold or free >= threshold:
        return False
    log.warning("disk pressure", free_bytes=free, least_bytes=threshold)
    return True


def _free(settings: BuilderSettings) -> int | None:
    """Bytes free on the disk of the engine's files; None when the engine does not answer."""
    try:
        with engine_at(settings.docker_socket) as engine:
            return disk.free_bytes(disk.of_engine(str(engine.info().get("DockerRootDir") or "")))
    except (DockerException, RequestException, OSError, KnollError):
        return None
