"""Removing an instance from the engine."""

from autoscaler.runtime.protocol import Runtime
from knoll.concurrency.backoff import until_available

LEAST_GRACE_SECONDS = 2.0
"""From SIGTERM to SIGKILL when the requests took all of the grace period to end."""


def remaining_grace(grace_seconds: float, drained_for: float) -> float:
    """Return the seconds from SIGTERM to SIGKILL that are left of the grace period; waiting for requests counts.

    Args:
        grace_seconds: of the instance, >= 0.
        drained_for: seconds since the instance began to drain, >= 0.
    """
    return max(min(LEAST_GRACE_SECONDS, grace_seconds), grace_seconds - drained_for)


async def remove(runtime: Runtime, instance: str, grace_seconds: float) -> None:
    """Stop and remove an instance, however long that takes: the engine may be unavailable."""
    await until_available(
        lambda: runtime.remove(instance, grace_seconds), "instance not removed yet", instance=instance
    )
