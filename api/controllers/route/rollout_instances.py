"""How many instances a Revision needs for its next share of the load. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WAIT_SECONDS = 60.0
"""How long a share waits for ready instances, in seconds; then the traffic moves anyway."""
CHECK_SECONDS = 2.0
"""Interval at which a held rollout is checked, in seconds; one tick of the autoscaler."""


@dataclass(frozen=True, slots=True)
class RevisionLoad:
    """The load of a Revision and its instances."""

    by_load: int
    """Instances that its load needs."""
    target: float
    """Target load of one instance."""
    metric: str
    ready: int
    most: int
    """Its max-scale; 0 means no limit."""


def instances_needed(newest: str, sharers: Iterable[str], share: float, loads: Mapping[str, RevisionLoad]) -> int:
    """Return how many instances a Revision needs for a share of the current load.

    Args:
        newest: name of the Revision.
        sharers: names of all Revisions that have the load now; may include `newest`.
        share: of the load, above 0 and at most 1.
        loads: by name of the Revision; Revisions without an entry have no load.
    """
    own = loads.get(newest)
    if own is None:
        return 0
    load = 0.0
    for name in {newest, *sharers}:
        other = loads.get(name)
        if other is not None:
            # Loads of different metrics are not comparable: instances are counted instead.
            load += other.by_load * (other.target if other.metric == own.metric else own.target)
    want = math.ceil(load * share / own.target - 1e-9)
    return min(want, own.most) if own.most else want
