"""DomainMapping: a custom host of a Service."""

from typing import ClassVar

from knoll.resources.models.base import Model, Resource
from knoll.resources.models.meta import Addressable, ObjectMeta, Status
from knoll.values.kinds import DOMAIN_MAPPING, Kind


class KReference(Model):
    """The object that receives the requests of a host."""

    kind: str = ""
    """`Service` or `Route`."""
    namespace: str = ""
    """Namespace of the object; must be that of the DomainMapping."""
    name: str = ""
    """Name of the object."""
    api_version: str = ""
    """`serving.knative.dev/v1`."""
    group: str = ""
    """API group, as an alternative to apiVersion."""
    address: str | None = None
    """Not used."""


class SecretTLS(Model):
    """A custom certificate."""

    secret_name: str = ""
    """Name of the Secret that contains `tls.crt` and `tls.key`."""


class DomainMappingSpec(Model):
    """The target of the host."""

    ref: KReference = KReference()
    """The Service or Route that receives the requests of the host."""
    tls: SecretTLS | None = None
    """A custom certificate for the host."""


class DomainMappingStatus(Status):
    """Observed state of the mapping."""

    url: str = ""
    """URL of the host."""
    address: Addressable | None = None
    """URL of the host, as an Addressable."""


class DomainMapping(Resource):
    """A custom host of a Service; the name of the object is the host."""

    KIND: ClassVar[Kind] = DOMAIN_MAPPING

    metadata: ObjectMeta = ObjectMeta()
    """Name (the host), labels and other metadata."""
    spec: DomainMappingSpec = DomainMappingSpec()
    """The target of the host."""
    status: DomainMappingStatus = DomainMappingStatus()
    """Observed state of the mapping."""
