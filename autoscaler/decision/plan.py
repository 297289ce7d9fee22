"""From how many to which: what to start and what to let go. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that is not on its way out."""

    name: str
    ready: bool
    in_flight: int
    created: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; empty when nothing differs."""

    start: int = 0
    let_go: tuple[str, ...] = ()


def plan(want: int, there: Sequence[Candidate]) -> Plan:
    """Compare how many are wanted with what is there.

    What is let go: first what is not ready, then what holds the fewest requests, then the youngest.
    """
    surplus = len(there) - want
    if surplus <= 0:
        return Plan(start=-surplus)
    order = sorted(there, key=lambda one: (one.ready, one.in_flight, -one.created))
    return Plan(let_go=tuple(one.name for one in order[:surplus]))
