"""The idle ladder: serving, paused, stopped, removed. Says which resting instances go down a rung, and why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Rung = Literal["paused", "stopped"]
"""`paused`: frozen, its memory is kept. `stopped`: its processes have ended; sandbox and file systems are kept."""


@dataclass(frozen=True, slots=True)
class Timers:
    """How long one Revision's instances rest on each rung, seconds; 0 leaves a rung out."""

    paused_seconds: float = 0.0
    stopped_seconds: float = 0.0

    @property
    def first(self) -> Rung | None:
        """Where an instance goes that is let go; None: it is removed."""
        if self.paused_seconds > 0:
            return "paused"
        return "stopped" if self.stopped_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Resting:
    """One instance that is not in service and may be woken."""

    name: str
    rung: Rung
    since: float
    """Epoch seconds of its first moment on that rung."""
    memory_bytes: int
    """What it keeps, >= 0."""
    timers: Timers


@dataclass(frozen=True, slots=True)
class Descent:
    """One instance goes down."""

    name: str
    to: Literal["stopped", "removed"]
    why: Literal["time", "memory"]


def descend(resting: Sequence[Resting], bound_bytes: int, now: float) -> list[Descent]:
    """Which instances go down a rung.

    Args:
        resting: all of the platform's.
        bound_bytes: how much memory paused instances may keep together; beyond it the longest paused go first.
        now: epoch seconds.

    Returns:
        At most one step for each instance; none for what may stay.
    """
    steps = [Descent(one.name, _next(one), "time") for one in resting if _is_over(one, now)]
    over = {one.name for one in steps}
    paused = sorted(
        (one for one in resting if one.rung == "paused" and one.name not in over), key=lambda one: (one.since, one.name)
    )
    kept = sum(one.memory_bytes for one in paused)
    for one in paused:
        if kept <= bound_bytes:
            break
        kept -= one.memory_bytes
        if one.memory_bytes:
            steps.append(Descent(one.name, _next(one), "memory"))
    return steps


def wake_order(resting: Sequence[Resting]) -> list[str]:
    """Names of a Revision's resting instances, the one first that serves again soonest.

    Paused before stopped; of equals the one that rests the shortest: its caches are the warmest.
    """
    return [one.name for one in sorted(resting, key=lambda one: (one.rung != "paused", -one.since, one.name))]


def _is_over(one: Resting, now: float) -> bool:
    bound = one.timers.paused_seconds if one.rung == "paused" else one.timers.stopped_seconds
    return now - one.since >= bound


def _next(one: Resting) -> Literal["stopped", "removed"]:
    return "stopped" if one.rung == "paused" and one.timers.stopped_seconds > 0 else "removed"
