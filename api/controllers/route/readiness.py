"""Whether a Revision has instances enough for the share of the load that it is to get. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WAIT_SECONDS = 60.0
"""How long a share is held back for want of instances; then it moves all the same."""
LOOK_SECONDS = 2.0
"""Between two looks at what it wants meanwhile: an autoscaler's tick."""


@dataclass(frozen=True, slots=True)
class RevisionLoad:
    """How a Revision stands."""

    by_load: int
    """Instances that its load wants."""
    target: float
    """Load that one of its instances is meant to have."""
    metric: str
    ready: int
    most: int
    """Its max-scale; 0 is no limit."""


def instances_needed(newest: str, sharers: Iterable[str], share: float, loads: Mapping[str, RevisionLoad]) -> int:
    """Instances that a Revision needs for its share of the load there is now.

    Args:
        sharers: names of all that the load is on, `newest` among them where it has some.
        share: that it is to get of that load, above 0 and at most 1.
        loads: by name; what is not known of counts for nothing.
    """
    own = loads.get(newest)
    if own is None:
        return 0
    load = 0.0
    for name in {newest, *sharers}:
        other = loads.get(name)
        if other is not None:
            # Loads of different metrics cannot be compared: an instance counts for an instance.
            load += other.by_load * (other.target if other.metric == own.metric else own.target)
    want = math.ceil(load * share / own.target - 1e-9)
    return min(want, own.most) if own.most else want
