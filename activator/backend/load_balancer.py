"""Choice of the endpoint that gets a request, as in Knative's activator. Pure.

Source: Knative Serving, pkg/activator/net/lb_policy.go.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

LOCAL_FACTOR, LOCAL_ADVANTAGE = 1.25, 2
"""An instance of this node is preferred until its requests exceed those of another node's by this factor and number."""


class EndpointCandidate(Protocol):
    """An endpoint, as a policy sees it."""

    in_flight: int
    """Requests in it, as far as this worker counts them."""
    others: int
    """Requests that other nodes sent to an instance of another node, as its node last reported; 0 for local ones."""
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


def less_loaded_of_two(candidates: Sequence[S], draw: Callable[[], float]) -> S:
    """Draw two and return the one with fewer requests, including those that other nodes sent."""
    count = len(candidates)
    if count == 1:
        return candidates[0]
    first = int(draw() * count)
    other = int(draw() * (count - 1))
    chosen, second = candidates[first], candidates[other + (other >= first)]
    return second if second.in_flight + second.others < chosen.in_flight + chosen.others else chosen


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


def over_nodes(candidates: Sequence[S], local: int, choose: Policy[S]) -> Policy[S]:
    """Return a policy for candidates of which some run on other nodes; it prefers those of this node.

    With a limit, instances of other nodes get requests for which this node has no free slot. Without one, they get a
    request when the instance here has more requests than theirs, by `LOCAL_FACTOR` and `LOCAL_ADVANTAGE`. All requests
    count, also those that other nodes sent; otherwise two nodes would exchange theirs.

    Args:
        candidates: the first `local` ones run on this node; the policy is for these candidates only.
        choose: the policy that is applied to local and to remote instances separately.
    """
    near, far = candidates[:local], candidates[local:]

    def choose_limited(_: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
        chosen = choose(near, start, draw)
        return chosen if chosen is not None else choose(far, start, draw)

    def choose_unlimited(_: Sequence[S], __: int, draw: Callable[[], float]) -> S | None:
        chosen = less_loaded_of_two(far, draw)
        if near:
            here = less_loaded_of_two(near, draw)
            if here.in_flight <= LOCAL_FACTOR * (chosen.in_flight + chosen.others) + LOCAL_ADVANTAGE:
                chosen = here
        return chosen if chosen.take_slot() else None

    return choose_unlimited if choose is least_of_two else choose_limited


def policy(limit: int) -> Policy[S]:
    """Return the policy for this containerConcurrency."""
    if limit == 0:
        return least_of_two
    return first_free if limit <= 3 else round_robin
