"""Places: services of one task, each on the node that Swarm gave the task. Pure."""

from dataclasses import dataclass, field
from enum import Enum

from autoscaler.placement.protocol import Constraints
from autoscaler.placement.swarm.services import PlaceSize


class PlaceState(Enum):
    """What is with a place.

    QUEUED → REQUESTED → WAITING or STARTING; WAITING → STARTING; STARTING → RUNNING. At a failure the place is
    discarded with its service, and what it was for gets a new one, which is QUEUED.
    """

    QUEUED = "it has no service yet"
    REQUESTED = "Swarm has not decided yet"
    WAITING = "Swarm has no machine for it"
    STARTING = "it has a machine, and its container does not run yet"
    RUNNING = "its container runs"


PLACED = (PlaceState.STARTING, PlaceState.RUNNING)


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    """How many places."""

    ahead: int = 8
    """Free places without requests, >= 0."""
    per_node: int = 8
    """Places that are being made at a time, for each machine, >= 1: Swarm begins with all of them at once."""
    keep_seconds: float = 600.0
    """How long a free place is kept."""


@dataclass(slots=True, eq=False)
class Place:
    """One place."""

    name: str
    """Of its service."""
    size: PlaceSize
    instance: str = ""
    """Which has it; empty for a free one."""
    state: PlaceState = PlaceState.QUEUED
    service: str = ""
    """Id of its service; empty until that is known."""
    machine: str = ""
    """Id of its machine in the Swarm."""
    constraints: tuple[str, ...] = ()
    """With which it was requested."""
    free_since: float = 0.0
    """Seconds, as `retry_at`."""
    retry_at: float = 0.0
    """It is not requested before."""
    error: str = ""
    """Why it was refused."""


@dataclass(slots=True)
class Claim:
    """An instance that needs a place."""

    size: PlaceSize
    constraints: Constraints
    node: str | None = None
    """Where it is bound; it stays there whatever happens to its place."""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class PlacePlan:
    """What is to be done in the Swarm."""

    create: list[Place] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    """Ids of services."""


def target_of(place: Place) -> str:
    """Return the machine that a place has or must have; empty if Swarm chooses."""
    if place.machine:
        return place.machine
    only = [each.removeprefix("node.id==") for each in place.constraints if each.startswith("node.id==")]
    return only[0] if only else ""
