"""Service: a Configuration and a Route of the same name in one object."""

from typing import ClassVar

from knoll.resources.models.base import Resource
from knoll.resources.models.configuration import ConfigurationSpec, ConfigurationStatus
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.models.route import RouteSpec, RouteStatus
from knoll.values.kinds import SERVICE, Kind


class ServiceSpec(ConfigurationSpec, RouteSpec):
    """The code and settings that are wanted, and who gets which share of the requests."""


class ServiceStatus(ConfigurationStatus, RouteStatus):
    """What became of the template, where the Service can be reached and who gets what."""


class Service(Resource):
    """A program that is reached at a host and runs as many instances as its requests need, none included."""

    KIND: ClassVar[Kind] = SERVICE

    metadata: ObjectMeta = ObjectMeta()
    """Name, identity and labels."""
    spec: ServiceSpec = ServiceSpec()
    """What is wanted."""
    status: ServiceStatus = ServiceStatus()
    """What became of it."""
