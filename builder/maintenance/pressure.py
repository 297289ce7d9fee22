"""Watches the free space on the engine's disk, so that a nearly full disk is cleaned up early."""

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

CHECK_SECONDS = 30.0
MIN_INTERVAL_SECONDS = 60.0
"""Shortest time between two clean-ups, however full the disk is."""


async def wait(settings: BuilderSettings, store: Store) -> bool:
    """Wait until the next clean-up is due; returns whether that is because the disk is nearly full."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while pause := until_next_check(clock() - began, settings.prune_seconds):
        await asyncio.sleep(pause)
        if clock() - began >= MIN_INTERVAL_SECONDS and await is_pressed(store, lambda: _free(settings)):
            return True
    return False


def until_next_check(elapsed: float, period: float) -> float:
    """Return the seconds until free space is checked or the clean-up is due; 0 when it is due now.

    Args:
        elapsed: seconds since the last clean-up.
        period: seconds between clean-ups without disk pressure.
    """
    return max(0.0, min(max(MIN_INTERVAL_SECONDS, elapsed + CHECK_SECONDS), period) - elapsed)


async def is_pressed(store: Store, measure: Callable[[], int | None]) -> bool:
    """Return whether less than `disk-pressure-free` is free; False when that is unknown.

    Args: measure: returns the bytes free on the engine's disk, None when unknown; blocks.
    """
    try:
        data = (await store.get(kinds.CONFIG_MAP.id, SYSTEM_NAMESPACE, security.NAME)).get("data") or {}
        least = security.parse(data).disk_pressure_free
    except NotFoundError:
        least = security.SecurityConfig().disk_pressure_free
    except KnollError as error:
        log.warning("free space unknown", error=str(error))
        return False
    free = await asyncio.to_thread(measure)
    if free is None or not least or free >= least:
        return False
    log.warning("disk pressure detected", free_bytes=free, least_bytes=least)
    return True


def _free(settings: BuilderSettings) -> int | None:
    """Return the free bytes on the disk of the engine's files; None when the engine does not respond."""
    try:
        with engine_at(settings.docker_socket) as engine:
            return disk.free_bytes(disk.of_engine(str(engine.info().get("DockerRootDir") or "")))
    except (DockerException, RequestException, OSError, KnollError):
        return None
