"""The actions that a reconciler returns and `engine.executor` carries out, in order. Pure values."""

from dataclasses import dataclass, field

from knoll.messages.routing import RouteEntry
from knoll.values.json import Json

ObjectKey = tuple[str, str, str]
"""(resource id, namespace, name) of one object: the unit of the work queue and of a reconciliation."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object. The executor sets its uid, creationTimestamp and generation."""

    resource: str
    body: Json


@dataclass(frozen=True, slots=True)
class Update:
    """Replace an object whose metadata or spec, and possibly status, changed. A new spec increments the generation."""

    resource: str
    before: Json
    body: Json


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Replace an object whose status alone changed."""

    resource: str
    before: Json
    body: Json


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object unless its uid has changed."""

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
    """Remove the builder's result for a deleted object. `table` is `resolutions` or `builds`."""

    table: str
    field: str


@dataclass(frozen=True, slots=True)
class ResolveImages:
    """Ask the builder for the digests of a Revision's images."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Enqueue a Build for the builder."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Emit a core/v1 Event about an object."""

    about: Json
    """The object."""
    type: str
    """`Normal` or `Warning`."""
    reason: str
    message: str
    count: int = 1
    """How often it happened since the last Event."""


Action = Create | Update | UpdateStatus | Delete | PutRoute | RemoveRoute | Forget | ResolveImages | Enqueue | Emit


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """The result of one reconciliation, as controller-runtime's `reconcile.Result`."""

    actions: list[Action] = field(default_factory=list)
    """In the order in which they are carried out."""
    requeue_after: float | None = None
    """Seconds after which the object is reconciled again even if nothing changed."""
    waits: bool = False
    """Reconcile again when every activator has acknowledged the routing entry."""
    again: bool = False
    """Reconcile again at once: the next step depends on what the actions wrote."""
