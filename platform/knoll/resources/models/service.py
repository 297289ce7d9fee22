"""Service: a Configuration and a Route of the same name in one object."""

from typing import ClassVar

from knoll.resources.models.base import Resource
from knoll.resources.models.configuration import ConfigurationSpec, ConfigurationStatus
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.models.route import RouteSpec, RouteStatus
from knoll.values.kinds import SERVICE, Kind


class ServiceSpec(ConfigurationSpec, RouteSpec):
    """The desired code and settings, and the traffic split."""


class ServiceStatus(ConfigurationStatus, RouteStatus):
    """The Revisions, URLs and traffic split of the Service."""


class Service(Resource):
    """A program with a URL, which is scaled with its requests, also to zero."""

    KIND: ClassVar[Kind] = SERVICE

    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata."""
    spec: ServiceSpec = ServiceSpec()
    """Desired state."""
    status: ServiceStatus = ServiceStatus()
    """Observed state."""
