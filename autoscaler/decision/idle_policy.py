"""The idle policy: serving, paused, stopped, removed. Decides which idle instances step down, and why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

IdleState = Literal["paused", "stopped"]
"""`paused`: frozen, its memory is kept. `stopped`: its processes have ended; sandbox and file systems are kept."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the instances of one Revision stay in each idle state, seconds; 0 skips a state."""

    paused_seconds: float = 0.0
    stopped_seconds: float = 0.0

    @property
    def first(self) -> IdleState | None:
        """The idle state of an instance that is not needed any more; None: it is removed."""
        if self.paused_seconds > 0:
            return "paused"
        return "stopped" if self.stopped_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class IdleInstance:
    """One instance that is not in service and can be woken."""

    name: str
    state: IdleState
    since: float
    """Epoch seconds at which it entered the state."""
    memory_bytes: int
    """Memory that it keeps, >= 0."""
    retention: Retention


@dataclass(frozen=True, slots=True)
class StepDown:
    """One instance goes to a cheaper state."""

    name: str
    to: Literal["stopped", "removed"]
    reason: Literal["time", "memory"]


def step_down(idle: Sequence[IdleInstance], bound_bytes: int, now: float) -> list[StepDown]:
    """Return which instances go to a cheaper state.

    Args:
        idle: all idle instances of the platform.
        bound_bytes: memory that paused instances may keep together; beyond it the longest paused go first.
        now: epoch seconds.

    Returns:
        At most one step for each instance; none for an instance that may stay.
    """
    steps = [StepDown(instance.name, _next(instance), "time") for instance in idle if _is_over(instance, now)]
    over = {step.name for step in steps}
    paused = sorted(
        (instance for instance in idle if instance.state == "paused" and instance.name not in over),
        key=lambda instance: (instance.since, instance.name),
    )
    kept = sum(instance.memory_bytes for instance in paused)
    for instance in paused:
        if kept <= bound_bytes:
            break
        kept -= instance.memory_bytes
        if instance.memory_bytes:
            steps.append(StepDown(instance.name, _next(instance), "memory"))
    return steps


def wake_order(idle: Sequence[IdleInstance]) -> list[str]:
    """Return the names of a Revision's idle instances, the fastest to wake first.

    Paused before stopped; among equals the most recently idle one, whose caches are the warmest.
    """
    ordered = sorted(idle, key=lambda instance: (instance.state != "paused", -instance.since, instance.name))
    return [instance.name for instance in ordered]


def _is_over(instance: IdleInstance, now: float) -> bool:
    retention = instance.retention
    bound = retention.paused_seconds if instance.state == "paused" else retention.stopped_seconds
    return now - instance.since >= bound


def _next(instance: IdleInstance) -> Literal["stopped", "removed"]:
    return "stopped" if instance.state == "paused" and instance.retention.stopped_seconds > 0 else "removed"
