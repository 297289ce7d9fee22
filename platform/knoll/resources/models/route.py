"""Route: a host and the Revisions that share its requests."""

from typing import ClassVar

from knoll.resources.models.base import Model, Resource
from knoll.resources.models.meta import Addressable, ObjectMeta, Status, TrafficTarget
from knoll.values.kinds import ROUTE, Kind


class RouteSpec(Model):
    """The traffic split."""

    traffic: tuple[TrafficTarget, ...] = ()
    """Traffic targets; their percentages sum to 100."""


class RouteStatus(Status):
    """URLs and traffic split of the Route."""

    url: str = ""
    """Public URL."""
    address: Addressable | None = None
    """Cluster-local address."""
    traffic: tuple[TrafficTarget, ...] = ()
    """The current traffic split, with the names of Revisions and the URLs of tags."""


class Route(Resource):
    """A host and the Revisions that share its requests."""

    KIND: ClassVar[Kind] = ROUTE

    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata."""
    spec: RouteSpec = RouteSpec()
    """The traffic split."""
    status: RouteStatus = RouteStatus()
    """URLs and current traffic split."""
