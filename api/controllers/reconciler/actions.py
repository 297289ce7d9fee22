"""What a reconciler wants done. Pure values: reconcilers return them, `execute` carries them out, in order."""

from dataclasses import dataclass, field

from knoll.messages.routing import RouteEntry
from knoll.values.json import Json

Key = tuple[str, str, str]
"""(resource id, namespace, name) of one object: what the queue holds and what is reconciled at a time."""


@dataclass(frozen=True, slots=True)
class Create:
    """Add an object. Its uid, creationTimestamp and generation are given when it is carried out."""

    resource: str
    body: Json


@dataclass(frozen=True, slots=True)
class Update:
    """Replace an object whose metadata or spec differs (its status may as well); the generation follows the spec."""

    resource: str
    before: Json
    body: Json


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Replace an object of which only the status differs."""

    resource: str
    before: Json
    body: Json


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object, if it is still the one that was seen."""

    resource: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PutRoute:
    """Set a Route's entry of the routing table. `field` is `namespace/name`."""

    field: str
    entry: RouteEntry


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Remove a Route's entry from the routing table."""

    field: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove what a builder answered about an object that is gone. `table` is `resolutions` or `builds`."""

    table: str
    field: str


@dataclass(frozen=True, slots=True)
class Resolve:
    """Ask the builder for the digests of a Revision's images."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Hand a Build to the builder."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell the user what happened to an object, as a core/v1 Event."""

    about: Json
    """The object."""
    type: str
    """`Normal` or `Warning`."""
    reason: str
    message: str
    count: int = 1
    """How many times it happened since it was emitted last."""


Action = Create | Update | UpdateStatus | Delete | PutRoute | RemoveRoute | Forget | Resolve | Enqueue | Emit


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What one reconciliation decided."""

    actions: list[Action] = field(default_factory=list)
    """To be carried out in this order."""
    requeue_after: float | None = None
    """Seconds after which to look again without being told that something changed."""
    waits: bool = False
    """The routing entry is to be acknowledged by the activators; look again when it is."""
