"""DomainMapping: one more host for a Service."""

from typing import ClassVar

from knoll.resources.models.base import Model, Resource
from knoll.resources.models.meta import Addressable, ObjectMeta, Status
from knoll.values.kinds import DOMAIN_MAPPING, Kind


class KReference(Model):
    """The object that a host leads to."""

    kind: str = ""
    """`Service` or `Route`."""
    namespace: str = ""
    """Its namespace; the DomainMapping's own."""
    name: str = ""
    """Its name."""
    api_version: str = ""
    """`serving.knative.dev/v1`."""
    group: str = ""
    """Group alone, where no version is named."""
    address: str | None = None
    """Not used."""


class SecretTLS(Model):
    """A certificate of one's own."""

    secret_name: str = ""
    """Name of the Secret that holds `tls.crt` and `tls.key`."""


class DomainMappingSpec(Model):
    """Where the host leads."""

    ref: KReference = KReference()
    """The Service that gets the host's requests."""
    tls: SecretTLS | None = None
    """A certificate of one's own for the host."""


class DomainMappingStatus(Status):
    """Where the host can be reached."""

    url: str = ""
    """Address of the host."""
    address: Addressable | None = None
    """The same, for tools."""


class DomainMapping(Resource):
    """One more host for a Service; the object's name is the host."""

    KIND: ClassVar[Kind] = DOMAIN_MAPPING

    metadata: ObjectMeta = ObjectMeta()
    """Name (the host), identity and labels."""
    spec: DomainMappingSpec = DomainMappingSpec()
    """Where the host leads."""
    status: DomainMappingStatus = DomainMappingStatus()
    """Where the host can be reached."""
