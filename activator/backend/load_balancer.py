"""Choice of the endpoint that gets a request, as in Knative's activator. Pure.

Source: Knative Serving, pkg/activator/net/lb_policy.go.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class EndpointCandidate(Protocol):
    """An endpoint, as a policy sees it."""

    in_flight: int
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


def policy(limit: int) -> Policy[S]:
    """Return the policy for this containerConcurrency."""
    if limit == 0:
        return least_of_two
    return first_free if limit <= 3 else round_robin
