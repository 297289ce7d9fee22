"""Choice of the instance that gets a request, as Knative's activator chooses. Pure.

Source: Knative Serving, pkg/activator/net/lb_policy.go.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What a policy sees of an instance."""

    in_flight: int
    limit: int
    """Requests at once; 0 is no limit."""

    def take_slot(self) -> bool:
        """Count one request in, if there is room."""
        ...


S = TypeVar("S", bound=Candidate)


def least_of_two(candidates: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
    """For instances without a limit: draw two, take the one with fewer requests.

    Args:
        slots: instances that may be picked.
        start: not used.
        draw: gives a number in [0, 1).
    """
    count = len(candidates)
    if count == 0:
        return None
    if count == 1:
        chosen = candidates[0]
    else:
        one = int(draw() * count)
        other = int(draw() * (count - 1))
        chosen, second = candidates[one], candidates[other + (other >= one)]
        if second.in_flight < chosen.in_flight:
            chosen = second
    return chosen if chosen.take_slot() else None


def first_free(candidates: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
    """For limits up to 3: fill the first, then the second, so that the last can be taken away."""
    for candidate in candidates:
        if candidate.take_slot():
            return candidate
    return None


def round_robin(candidates: Sequence[S], start: int, draw: Callable[[], float]) -> S | None:
    """For higher limits: one after the other from `start`, over those that are full."""
    count = len(candidates)
    for step in range(count):
        candidate = candidates[(start + step) % count]
        if candidate.take_slot():
            return candidate
    return None


Policy = Callable[[Sequence[S], int, Callable[[], float]], S | None]


def policy(limit: int) -> Policy[S]:
    """The policy for instances with this containerConcurrency."""
    if limit == 0:
        return least_of_two
    return first_free if limit <= 3 else round_robin
