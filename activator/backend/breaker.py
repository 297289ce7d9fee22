"""Admission: which request gets which endpoint now, which is queued, which is rejected. Pure.

Queued requests are admitted in order of arrival. The methods return the admitted ones; the caller sends them. A request
that arrives when the queue is full gets QueueFullError, for which `activator.request.exchange` responds with
`overload_status`, 503.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from itertools import takewhile
from typing import Generic, TypeVar

from activator.backend.load_balancer import EndpointCandidate, Policy, over_nodes, policy
from knoll.values.errors import QueueFullError

QUEUE_DEPTH = 10_000
"""Requests that may be queued for one revision in one process, as in Knative's activator."""

W = TypeVar("W", bound=Hashable)
S = TypeVar("S", bound=EndpointCandidate)


class Breaker(Generic[W, S]):
    """The endpoints of a revision and the queue in front of them."""

    def __init__(self, limit: int, depth: int, draw: Callable[[], float]) -> None:
        """
        Args:
            limit: containerConcurrency; it decides the load-balancing policy.
            depth: maximum length of the queue.
            draw: returns a number in [0, 1).
        """
        self.candidates: Sequence[S] = ()
        """Endpoints that may be picked."""
        self.sole: S | None = None
        """The only endpoint, if it has no limit: it gets every request, so that callers need no `enter`."""
        self.queue: OrderedDict[W, None] = OrderedDict()
        self.depth = depth
        self._draw = draw
        self._choose: Policy[S] = policy(limit)
        self._turn = 0

    def enter(self, waiter: W) -> S | None:
        """Take a slot or queue.

        Returns: the endpoint, with the slot taken; None if the request was queued.

        Raises: QueueFullError: it was not queued.
        """
        if not self.queue:
            self._turn += 1  # as `pick`
            candidate = self._choose(self.candidates, self._turn, self._draw)
            if candidate is not None:
                return candidate
        if len(self.queue) >= self.depth:
            raise QueueFullError("pending request queue full")
        self.queue[waiter] = None
        return None

    def pick(self) -> S | None:
        """Take a slot regardless of the queue; None if all are taken."""
        self._turn += 1
        return self._choose(self.candidates, self._turn, self._draw)

    def requeue(self, waiter: W, earlier: Callable[[W], bool] | None = None) -> None:
        """Put a request back at the head of the queue: it had a slot, but its instance did not accept it.

        Args:
            earlier: returns whether another request arrived before this one. It is called for the head of the queue,
                so that requests which come back keep their order. Those that never left the queue arrived later.
        """
        queue = self.queue
        before = [] if earlier is None else list(takewhile(earlier, queue))
        queue[waiter] = None
        for each in (waiter, *reversed(before)):
            queue.move_to_end(each, last=False)

    def remove(self, waiter: W) -> bool:
        """Remove a request from the queue; returns whether it was there."""
        return self.queue.pop(waiter, self) is None

    def dispatch(self) -> list[tuple[W, S]]:
        """Return the requests admitted now, each with the endpoint whose slot it got; for use after a release."""
        admitted: list[tuple[W, S]] = []
        while self.queue:
            candidate = self.pick()
            if candidate is None:
                break
            admitted.append((self.queue.popitem(last=False)[0], candidate))
        return admitted

    def resize(self, candidates: Sequence[S], limit: int, local: int | None = None) -> list[tuple[W, S]]:
        """Replace the endpoints; removed ones keep their own counts. Returns what `dispatch` returns.

        Args: local: number of candidates, from the first, that run on this node; None for all.
        """
        self.candidates = candidates
        self._choose = policy(limit)
        self.sole = candidates[0] if len(candidates) == 1 and not limit else None
        if local is not None and local < len(candidates):
            self._choose = over_nodes(candidates, local, self._choose)
        return self.dispatch()
