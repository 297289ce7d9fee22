"""Which Revisions have an armed instance: those at zero that were used last, within a bound and free memory. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RECENT_SECONDS = 24 * 3600.0
"""A Revision that had no instance for longer than this is not expected to be woken soon."""
ARMED_BYTES = 6 * 1024**2
"""Memory that an armed instance takes: its sandbox, the first process of its containers, and the engine's part."""
KEPT_FREE = 0.1
"""Share of the machine's memory that armed instances leave free."""


@dataclass(frozen=True, slots=True)
class ArmingCandidate:
    """A Revision without an instance, which gets one with the next request."""

    uid: str
    last_used: float
    """When its last instance went out of service, epoch seconds."""


@dataclass(frozen=True, slots=True)
class Armed:
    """An instance that is armed or being armed."""

    name: str
    uid: str
    """uid of its Revision."""


@dataclass(frozen=True, slots=True)
class ArmingPlan:
    """What to do."""

    disarm: tuple[str, ...] = ()
    """Names of instances."""
    arm: tuple[str, ...] = ()
    """uids of Revisions, the most urgent first."""


def limit(bound: int, armed: int, total_bytes: int, available_bytes: int | None) -> int:
    """Return how many instances may be armed.

    Args:
        bound: the setting, >= 0; 0 turns armed instances off.
        armed: how many are armed now; their memory is not available any more.
        total_bytes: memory of the machine.
        available_bytes: memory that is available without swapping; None when it is unknown.
    """
    if available_bytes is None:
        return bound
    room = math.floor((available_bytes - KEPT_FREE * total_bytes) / ARMED_BYTES)
    return max(0, min(bound, armed + room))


def plan(candidates: Iterable[ArmingCandidate], armed: Sequence[Armed], most: int, now: float) -> ArmingPlan:
    """Compare the armed instances with those that are needed: at most one for each Revision.

    Args:
        candidates: each Revision at most once.
        armed: those that can still be released.
        most: result of `limit`.
        now: epoch seconds.
    """
    recent = [candidate for candidate in candidates if now - candidate.last_used <= RECENT_SECONDS]
    recent.sort(key=lambda candidate: (-candidate.last_used, candidate.uid))
    uids = dict.fromkeys(candidate.uid for candidate in recent[:most])
    kept: dict[str, str] = {}
    for instance in armed:
        if instance.uid in uids:
            kept.setdefault(instance.uid, instance.name)
    names = set(kept.values())
    return ArmingPlan(
        tuple(instance.name for instance in armed if instance.name not in names),
        tuple(uid for uid in uids if uid not in kept),
    )
