"""Spreads free places without resource requests over the machines again, after a machine was added or came back. Pure.

Swarm chooses a machine once, for the machines that there are at that moment: a machine that joins later would have no
free place until others are used.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from autoscaler.placement.swarm.places import PLACED, Place, target_of

SETTLED_SECONDS = 5.0
"""A place that has become free is not moved before this time: under load it is taken again at once."""


def moves(places: Iterable[Place], machines: Collection[str], now: float) -> list[tuple[Place, str]]:
    """Return the free places to replace, each with the machine for its replacement.

    Args:
        places: all places.
        machines: ids of the machines that take new places.
        now: seconds on the clock of the places.
    """
    free = [place for place in places if not place.instance and place.size.is_empty]
    if len(machines) < 2 or not all(map(target_of, free)):
        return []  # for the others, Swarm has not decided yet
    counts = Counter(dict.fromkeys(machines, 0))
    counts.update(target for place in free if (target := target_of(place)) in counts)
    movable = [place for place in free if place.state in PLACED and now - place.free_since >= SETTLED_SECONDS]
    chosen: list[tuple[Place, str]] = []
    for place in movable:
        least = min(counts, key=lambda machine: (counts[machine], machine))
        if counts[place.machine] - counts[least] >= 2:
            counts[place.machine] -= 1
            counts[least] += 1
            chosen.append((place, least))
    return chosen
