"""Admission: which request runs on which instance now, which waits, which is refused. Pure.

Waiters are served in order of arrival. `enter`, `leave` and `resize` say who may run; the caller wakes them.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from activator.backend.load_balancer import Candidate, Policy, policy
from knoll.values.errors import QueueFullError

QUEUE_DEPTH = 10_000
"""Requests that may wait for one revision in one process, as in Knative's activator."""

W = TypeVar("W", bound=Hashable)
S = TypeVar("S", bound=Candidate)


class Breaker(Generic[W, S]):
    """Slots of a revision's instances and the queue in front of them."""

    def __init__(self, limit: int, depth: int, draw: Callable[[], float]) -> None:
        """
        Args:
            limit: containerConcurrency, which chooses the policy.
            depth: waiters at most.
            draw: gives a number in [0, 1).
        """
        self.candidates: Sequence[S] = ()
        """Instances that may be picked."""
        self.queue: OrderedDict[W, None] = OrderedDict()
        self.depth = depth
        self._draw = draw
        self._choose: Policy[S] = policy(limit)
        self._turn = 0

    def enter(self, waiter: W) -> S | None:
        """Ask for a slot.

        Returns: the slot, counted in; None when the waiter was put into the queue.

        Raises: QueueFullError: it waits nowhere.
        """
        if not self.queue:
            candidate = self.pick()
            if candidate is not None:
                return candidate
        if len(self.queue) >= self.depth:
            raise QueueFullError("pending request queue full")
        self.queue[waiter] = None
        return None

    def pick(self) -> S | None:
        """A slot, counted in, past the queue; None when all are taken."""
        self._turn += 1
        return self._choose(self.candidates, self._turn, self._draw)

    def requeue(self, waiter: W) -> None:
        """Let one wait before all others: it had a slot whose instance was not there."""
        self.queue[waiter] = None
        self.queue.move_to_end(waiter, last=False)

    def remove(self, waiter: W) -> bool:
        """Take a waiter out of the queue; says whether it was there."""
        return self.queue.pop(waiter, self) is None

    def dispatch(self) -> list[tuple[W, S]]:
        """Who may run now, each with the slot that was counted in for it; to be called after a slot was given back."""
        served: list[tuple[W, S]] = []
        while self.queue:
            candidate = self.pick()
            if candidate is None:
                break
            served.append((self.queue.popitem(last=False)[0], candidate))
        return served

    def resize(self, candidates: Sequence[S], limit: int) -> list[tuple[W, S]]:
        """Have other instances; those that are gone keep their own counts. Returns as `serve`."""
        self.candidates = candidates
        self._choose = policy(limit)
        return self.dispatch()
