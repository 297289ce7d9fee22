"""Decides who gets a released slot when other processes or nodes wait for slots of the same revision. Pure.

A node that was told `busy` is told `free` over the same connection, and the slot is left to it for a moment. So it need
not ask repeatedly, and its requests take turns with those that are queued here. It declines if it no longer has a
request.
"""

from collections import OrderedDict
from typing import Protocol

MAX_OFFERS = 4
"""Offers to a node that neither accepts nor declines them; after these it has to ask again."""


class RelayWaiter(Protocol):
    """A connection on which another node was told that an instance is busy."""

    def offer(self, revision: str, instance: str) -> bool:
        """Tell the node that a slot is free; returns False if the connection is gone or in use."""
        ...

    def __hash__(self) -> int: ...


class SlotSharing:
    """The other workers and nodes that wait for slots of one revision."""

    def __init__(self, revision: str) -> None:
        self._revision = revision
        self.other_workers = False
        """Whether requests are queued in other workers of this node."""
        self._waiters: OrderedDict[RelayWaiter, tuple[str, int]] = OrderedDict()
        """In the order of their turns: the instance that was busy, and the number of offers."""
        self._turn = 0

    def __bool__(self) -> bool:
        """Whether other workers or nodes wait."""
        return self.other_workers or bool(self._waiters)

    @property
    def other_nodes(self) -> bool:
        """Whether other nodes wait."""
        return bool(self._waiters)

    def add(self, waiter: RelayWaiter, instance: str) -> None:
        """Add a node that was told that an instance is busy."""
        self._waiters[waiter] = (instance, 0)

    def remove(self, waiter: RelayWaiter) -> None:
        """Remove a node that has a slot, or needs none."""
        self._waiters.pop(waiter, None)

    def next_turn(self) -> bool:
        """Return whether the slot that is released now is for others.

        The turns go round between the requests queued here, the other workers together, and each waiting node.
        """
        self._turn = (self._turn + 1) % (1 + self.other_workers + len(self._waiters))
        return self._turn != 0

    def offer(self, instance: str = "") -> None:
        """Tell the node whose turn it is that a slot is free. Args: instance: empty if it is not known."""
        while self._waiters:
            waiter, (busy_instance, offers) = self._waiters.popitem(last=False)
            if waiter.offer(self._revision, instance or busy_instance):
                if offers + 1 < MAX_OFFERS:
                    self._waiters[waiter] = (busy_instance, offers + 1)
                return
