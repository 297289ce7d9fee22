"""How long a container that ends again and again waits for its next start. Pure.

Source: Kubernetes, "Container restart policy": 10 s, doubled up to five minutes, forgotten after ten steady minutes.
"""

from dataclasses import dataclass

PAUSES = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds before the first, second, … start."""
STEADY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """Of one container."""

    count: int = 0
    """Starts after the first one, since it was steady last."""
    last: float = 0.0
    """When it was started last, epoch seconds."""


def ended(before: Restarts, now: float) -> tuple[float, Restarts]:
    """A container ended, or must be.

    Args:
        before: what this function returned last time.
        now: epoch seconds.

    Returns:
        Seconds to wait before it is started again, and what to pass in next time.
    """
    count = 0 if now - before.last >= STEADY_SECONDS else before.count
    pause = PAUSES[min(count, len(PAUSES) - 1)]
    return pause, Restarts(count + 1, now + pause)


def current_pause(restarts: Restarts) -> float:
    """Seconds of the pause that `ended` gave last; 0 before the first."""
    return PAUSES[min(restarts.count - 1, len(PAUSES) - 1)] if restarts.count else 0.0
