"""In which order queued places are requested, and which of them are held back. Pure.

Swarm has no limit on services that it cannot place: it tries all of them again at each change. So only some of them
exist at a time; the rest wait here, whatever their number, unless they fit by the reservations that are known.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from autoscaler.placement.swarm import reasons
from autoscaler.placement.swarm.model import Cluster
from autoscaler.placement.swarm.places import PLACED, Place, PlaceState
from autoscaler.placement.swarm.services import EMPTY, PlaceSize

OUTSTANDING = (PlaceState.REQUESTED, PlaceState.WAITING, PlaceState.STARTING)


def in_turn(places: Iterable[Place], now: float) -> list[Place]:
    """Return the queued places that may be requested: those of instances first, and namespaces take turns.

    The n-th place of a namespace has at most n places of each other namespace before it, counting those outstanding.
    """
    kept = list(places)
    turns = Counter(place.namespace for place in kept if place.state in OUTSTANDING)
    ordered: list[tuple[bool, int, int]] = []
    for at, place in enumerate(kept):
        if place.state is PlaceState.QUEUED and place.retry_at <= now:
            turns[place.namespace] += 1
            ordered.append((not place.instance, turns[place.namespace], at))
    return [kept[at] for _, _, at in sorted(ordered)]


def reserved_on(places: Iterable[Place]) -> dict[str, PlaceSize]:
    """Return what places reserve on each machine, by the machine's id."""
    reserved: dict[str, PlaceSize] = {}
    for place in places:
        if place.state in PLACED:
            before = reserved.get(place.machine, EMPTY)
            reserved[place.machine] = PlaceSize(
                before.nano_cpus + place.size.nano_cpus, before.memory_bytes + place.size.memory_bytes
            )
    return reserved


class Waiting:
    """The places that Swarm cannot place now, and how many more of them may be requested."""

    def __init__(self, cluster: Cluster, places: Sequence[Place], bound: int) -> None:
        """Args: bound: how many places may wait, >= 1."""
        self._cluster, self._reserved = cluster, reserved_on(places)
        self._waiting = [place for place in places if place.state is PlaceState.WAITING]
        self._room = bound - len(self._waiting)

    def holds(self, place: Place, machines: Sequence[str]) -> bool:
        """Return whether a place is not requested now, because it would wait. Args: machines: ids of those allowed."""
        if place.size.is_empty or self._fits(place, machines):
            return False
        self._room -= 1
        return self._room < 0

    def _fits(self, place: Place, machines: Sequence[str]) -> bool:
        if any(each.constraints == place.constraints and _at_most(each.size, place.size) for each in self._waiting):
            return False
        return any(
            reasons.fits(self._cluster.machines[machine], place.size, self._reserved.get(machine, PlaceSize()))
            for machine in machines
        )


def _at_most(size: PlaceSize, other: PlaceSize) -> bool:
    return size.nano_cpus <= other.nano_cpus and size.memory_bytes <= other.memory_bytes
