"""ClusterDomainClaim: the namespace that may map a custom host."""

from typing import ClassVar

from knoll.resources.models.base import Model, Resource
from knoll.resources.models.meta import ObjectMeta, Status
from knoll.values.kinds import CLUSTER_DOMAIN_CLAIM, Kind


class ClusterDomainClaimSpec(Model):
    """The owner of the host."""

    namespace: str = ""
    """The namespace whose DomainMappings may use the host."""


class ClusterDomainClaim(Resource):
    """Reserves a host, which is the name of the object, for one namespace."""

    KIND: ClassVar[Kind] = CLUSTER_DOMAIN_CLAIM

    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata. The name is the host."""
    spec: ClusterDomainClaimSpec = ClusterDomainClaimSpec()
    """The owner of the host."""
    status: Status = Status()
    """Not used."""
