"""Choice of the endpoint that gets a request, as in Knative's activator. Pure.

Source: Knative Serving, pkg/activator/net/lb_policy.go.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

LOCAL_ADVANTAGE = 4
"""An instance of this node is preferred until it has twice as many requests as one of another node, plus this."""


class EndpointCandidate(Protocol):
    """An endpoint, as a policy sees it."""

    in_flight: int
    relayed: int
    """Requests among them that other nodes sent."""
    limit: int
    """Limit of concurrent requests; 0 is no limit."""

    def take_slot(self) -> bool:
        """Take a slot, if one is free."""
        ...


S = TypeVar("S", bound=EndpointCandidate)


def least_of_two(candidates: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
    """For endpoints without a limit: draw two and take the one with fewer requests.

    Args:
        candidates: endpoints that may be picked.
        start: not used.
        draw: returns a number in [0, 1).
    """
    count = len(candidates)
    if count == 0:
        return None
    if count == 1:
        chosen = candidates[0]
    else:
        first = int(draw() * count)
        other = int(draw() * (count - 1))
        chosen, second = candidates[first], candidates[other + (other >= first)]
        if second.in_flight < chosen.in_flight:
            chosen = second
    return chosen if chosen.take_slot() else None


def _fewer(candidates: Sequence[S], draw: Callable[[], float]) -> S:
    """Draw two and return the one with fewer requests."""
    count = len(candidates)
    first = candidates[int(draw() * count)]
    second = candidates[int(draw() * count)]
    return second if second.in_flight < first.in_flight else first


def first_free(candidates: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
    """For limits up to 3: fill the first, then the second, so that the last ones can be removed."""
    for candidate in candidates:
        if candidate.take_slot():
            return candidate
    return None


def round_robin(candidates: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
    """For higher limits: the first one from `start` on that is not full."""
    count = len(candidates)
    for step in range(count):
        candidate = candidates[(start + step) % count]
        if candidate.take_slot():
            return candidate
    return None


Policy = Callable[[Sequence[S], int, Callable[[], float]], S | None]


def local_first(candidates: Sequence[S], local: int, choose: Policy[S]) -> Policy[S]:
    """Return a policy that prefers the instances of this node.

    With a limit, instances of other nodes get requests for which this node has no free slot. Without one, they get a
    request when the instance here is much busier (`LOCAL_ADVANTAGE`), so that a node at which all requests arrive uses
    the others. Requests that other nodes sent are not counted, otherwise two nodes would exchange their requests.

    Args:
        candidates: the first `local` ones run on this node; the policy is for these candidates only.
        choose: the policy that is applied to local and to remote instances separately.
    """
    near, far = candidates[:local], candidates[local:]

    def choose_limited(_: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
        chosen = choose(near, start, draw)
        return chosen if chosen is not None else choose(far, start, draw)

    def choose_unlimited(_: Sequence[S], __: int, draw: Callable[[], float]) -> S | None:
        chosen, other = _fewer(near, draw), _fewer(far, draw)
        if 2 * other.in_flight + LOCAL_ADVANTAGE < chosen.in_flight - chosen.relayed:
            chosen = other
        return chosen if chosen.take_slot() else None

    return choose_unlimited if choose is least_of_two else choose_limited


def policy(limit: int) -> Policy[S]:
    """Return the policy for this containerConcurrency."""
    if limit == 0:
        return least_of_two
    return first_free if limit <= 3 else round_robin
