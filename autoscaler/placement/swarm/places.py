"""Places: services of one task, each on the node that Swarm gave the task. Pure."""

from dataclasses import dataclass, field
from enum import Enum

from autoscaler.placement.protocol import Constraints
from autoscaler.placement.swarm.services import PlaceSize


class PlaceState(Enum):
    """The states of a place.

    QUEUED → REQUESTED → WAITING or STARTING; WAITING → STARTING; STARTING → RUNNING. After a failure the place and
    its service are discarded, and its instance gets a new place, which is QUEUED.
    """

    QUEUED = "it has no service yet"
    REQUESTED = "Swarm has not decided yet"
    WAITING = "Swarm has no machine for it"
    STARTING = "it has a machine, and its container does not run yet"
    RUNNING = "its container runs"


PLACED = (PlaceState.STARTING, PlaceState.RUNNING)


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    """How many places are created, and how long free ones are kept."""

    ahead: int = 8
    """Free places without resource requests that are created ahead of demand, >= 0."""
    per_node: int = 8
    """Places that are being created at a time, for each machine, >= 1: Swarm starts all of them at once. As many may
    wait for a machine in Swarm."""
    keep_seconds: float = 600.0
    """How long a free place is kept."""


@dataclass(slots=True, eq=False)
class Place:
    """A service with one task, which reserves resources on a node."""

    name: str
    """Name of its service."""
    size: PlaceSize
    instance: str = ""
    """The instance that has it; empty for a free place."""
    state: PlaceState = PlaceState.QUEUED
    service: str = ""
    """Id of its service; empty until that is known."""
    machine: str = ""
    """Id of its machine in the Swarm."""
    only: str = ""
    """Id of the machine that it is created for; empty for any."""
    constraints: tuple[str, ...] = ()
    """Swarm's placement constraints with which it was requested."""
    free_since: float = 0.0
    """Seconds on the clock of the place book, as `retry_at`."""
    retry_at: float = 0.0
    """It is not requested before this time."""
    error: str = ""
    """Why it was refused."""
    namespace: str = ""
    """Namespace of its instance."""
    held: bool = False
    """Whether it is not requested yet because too many others wait for a machine."""


@dataclass(slots=True)
class Claim:
    """An instance that needs a place."""

    size: PlaceSize
    constraints: Constraints
    node: str | None = None
    """The node that it is bound to; it keeps it whatever happens to its place."""
    place: Place | None = None
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class PlacePlan:
    """The services to create and to remove."""

    create: list[Place] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    """Ids of services."""


def target_of(place: Place) -> str:
    """Return the machine that a place has or must have; empty if Swarm chooses."""
    if place.machine or place.only:
        return place.machine or place.only
    only = [each.removeprefix("node.id==") for each in place.constraints if each.startswith("node.id==")]
    return only[0] if only else ""
