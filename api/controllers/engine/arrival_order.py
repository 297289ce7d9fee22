"""The order in which objects are reconciled: those of the Service that has waited longest come first. Pure.

A backlog then delays Services by their place in it, instead of letting each wait for the first steps of all others. The
steps of a Service that is nearly ready are among the first, because it arrived early.
"""

from typing import NamedTuple

from api.controllers.reconciler.actions import ObjectKey

Root = tuple[str, ...]
"""What an object belongs to: namespace and name of a Service, or the object's own key."""


class Rank(NamedTuple):
    """Lower ranks are reconciled first."""

    in_background: bool
    """Nothing changed: the object is only checked."""
    arrival: int
    """Number of its root's arrival."""


class ArrivalOrder:
    """Numbers roots as they arrive. A root keeps its number until it is settled."""

    def __init__(self) -> None:
        self._arrivals: dict[Root, int] = {}
        self._next = 0

    def __len__(self) -> int:
        """Roots that are not settled."""
        return len(self._arrivals)

    def rank(self, root: Root, *, in_background: bool = False) -> Rank:
        """The rank of an object that is to be reconciled now."""
        arrival = self._arrivals.get(root)
        if arrival is None:
            arrival = self._next
            self._next += 1
            if not in_background:
                self._arrivals[root] = arrival
        return Rank(in_background, arrival)

    def settled(self, root: Root) -> None:
        """Called when a root has reached its goal, failed, or was deleted: its next change counts as a new arrival."""
        self._arrivals.pop(root, None)


def root_of(key: ObjectKey, service: str) -> Root:
    """Args: service: the Service that an object is labelled with, or has the name of; empty if there is none."""
    return (key[1], service) if service else key
