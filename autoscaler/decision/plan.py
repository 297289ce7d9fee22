"""From a number of instances to the instances: how many to start and which to take out of service. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that counts towards the scale."""

    name: str
    ready: bool
    in_flight: int
    created: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; empty when nothing differs."""

    start: int = 0
    release: tuple[str, ...] = ()
    """Names of the instances to take out of service."""


def plan(desired: int, instances: Sequence[Candidate]) -> Plan:
    """Compare the desired number of instances with those that exist.

    Instances are taken out of service in this order: those that are not ready, then those with the fewest requests in
    flight, then the youngest.
    """
    surplus = len(instances) - desired
    if surplus <= 0:
        return Plan(start=-surplus)
    order = sorted(instances, key=lambda instance: (instance.ready, instance.in_flight, -instance.created))
    return Plan(release=tuple(instance.name for instance in order[:surplus]))
