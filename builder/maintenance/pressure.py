"""Whether the engine's disk is nearly full, so that images and caches are to be removed now."""

import asyncio
from collections.abc import Callable

import structlog
from docker.errors import DockerException
from requests.exceptions import RequestException

from builder.images.engine_images import engine_at
from knoll.config import security
from knoll.process import disk
from knoll.process.settings import BuilderSettings
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import KnollError, NotFoundError
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

LOOK_SECONDS = 30.0
LEAST_SECONDS = 60.0
"""Between two clean-ups, however full the disk is."""


async def wait(settings: BuilderSettings, store: Store) -> bool:
    """Wait until the next clean-up is due; returns whether that is because the disk is nearly full."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while pause := until_next_look(clock() - began, settings.prune_seconds):
        await asyncio.sleep(pause)
        if clock() - began >= LEAST_SECONDS and await is_pressed(store, lambda: _free(settings)):
            return True
    return False


def until_next_look(elapsed: float, period: float) -> float:
    """Seconds until free space is compared again, or the clean-up is due in any case; 0 when it is due now. Pure.

    Args:
        elapsed: seconds since the last clean-up.
        period: seconds from one clean-up to the next while there is no pressure.
    """
    return max(0.0, min(max(LEAST_SECONDS, elapsed + LOOK_SECONDS), period) - elapsed)


async def is_pressed(store: Store, measure: Callable[[], int | None]) -> bool:
    """Whether less is free than `disk-pressure-free` says; False when that cannot be found out.

    Args: measure: bytes free on the engine's disk, None when that is not known; blocks.
    """
    try:
        data = (await store.get(kinds.CONFIG_MAP.id, SYSTEM_NAMESPACE, security.NAME)).get("data") or {}
        least = security.parse(data).disk_pressure_free
    except NotFoundError:
        least = security.SecurityConfig().disk_pressure_free
    except KnollError as error:
        log.warning("free space not compared", error=str(error))
        return False
    free = await asyncio.to_thread(measure)
    if free is None or not least or free >= least:
        return False
    log.warning("disk pressure", free_bytes=free, least_bytes=least)
    return True


def _free(settings: BuilderSettings) -> int | None:
    """Bytes free on the disk of the engine's files; None when the engine does not answer."""
    try:
        with engine_at(settings.docker_socket) as engine:
            return disk.free_bytes(disk.of_engine(str(engine.info().get("DockerRootDir") or "")))
    except (DockerException, RequestException, OSError, KnollError):
        return None
