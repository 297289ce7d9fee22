"""The back-off of a container that ends repeatedly. Pure.

Source: Kubernetes, "Container restart policy": 10 s, doubled up to five minutes, reset after ten steady minutes.
"""

from dataclasses import dataclass

RESTART_PAUSES = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds before the first, second, … start."""
RESET_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """Restarts of one container."""

    count: int = 0
    """Restarts since it was last steady."""
    last: float = 0.0
    """Epoch seconds of its last start."""


def ended(before: Restarts, now: float) -> tuple[float, Restarts]:
    """Return the pause before the next start of a container that has ended or is to be stopped.

    Args:
        before: what this function returned last time.
        now: epoch seconds.

    Returns:
        Seconds to wait before it is started, and what to pass in next time.
    """
    count = 0 if now - before.last >= RESET_SECONDS else before.count
    pause = RESTART_PAUSES[min(count, len(RESTART_PAUSES) - 1)]
    return pause, Restarts(count + 1, now + pause)


def current_pause(restarts: Restarts) -> float:
    """Return the pause, in seconds, that `ended` returned last; 0 before the first."""
    return RESTART_PAUSES[min(restarts.count - 1, len(RESTART_PAUSES) - 1)] if restarts.count else 0.0
