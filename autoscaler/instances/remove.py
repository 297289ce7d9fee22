"""Removing an instance from the engine."""

import asyncio

import structlog

from autoscaler.runtime.protocol import Runtime
from knoll.values.errors import KnollError

log = structlog.get_logger()

LEAST_GRACE_SECONDS = 2.0
"""From SIGTERM to SIGKILL when the requests took all of the grace period to end."""
RETRY_SECONDS = 1.0


def remaining_grace(grace_seconds: float, drained_for: float) -> float:
    """Return the seconds from SIGTERM to SIGKILL that are left of the grace period; waiting for requests counts.

    Args:
        grace_seconds: of the instance, >= 0.
        drained_for: seconds since the instance began to drain, >= 0.
    """
    return max(min(LEAST_GRACE_SECONDS, grace_seconds), grace_seconds - drained_for)


async def remove(runtime: Runtime, instance: str, grace_seconds: float) -> None:
    """Stop and remove an instance, however long that takes: the engine may be unavailable."""
    while True:
        try:
            await runtime.remove(instance, grace_seconds)
            return
        except KnollError as error:
            log.warning("instance not removed yet", instance=instance, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
