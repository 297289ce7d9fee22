"""Route: a host, and the Revisions that share its requests."""

from typing import ClassVar

from knoll.resources.models.base import Model, Resource
from knoll.resources.models.meta import Addressable, ObjectMeta, Status, TrafficTarget
from knoll.values.kinds import ROUTE, Kind


class RouteSpec(Model):
    """Who gets which share of the requests."""

    traffic: tuple[TrafficTarget, ...] = ()
    """The shares; their percents sum to 100."""


class RouteStatus(Status):
    """Where the Route can be reached and who gets what."""

    url: str = ""
    """Address for everybody."""
    address: Addressable | None = None
    """Address for other instances."""
    traffic: tuple[TrafficTarget, ...] = ()
    """The shares as they are, with Revisions by name and addresses of tags."""


class Route(Resource):
    """A host, and the Revisions that share its requests."""

    KIND: ClassVar[Kind] = ROUTE

    metadata: ObjectMeta = ObjectMeta()
    """Name, identity and labels."""
    spec: RouteSpec = RouteSpec()
    """Who gets which share of the requests."""
    status: RouteStatus = RouteStatus()
    """Where it can be reached and who gets what."""
