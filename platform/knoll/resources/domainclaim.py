"""ClusterDomainClaim: which namespace may map a host of its own."""

from typing import ClassVar

from knoll.kinds import CLUSTER_DOMAIN_CLAIM, Kind
from knoll.resources.base import Model, Resource
from knoll.resources.meta import ObjectMeta, Status


class ClusterDomainClaimSpec(Model):
    """The owner of the host."""

    namespace: str = ""
    """The namespace whose DomainMappings may use the host."""


class ClusterDomainClaim(Resource):
    """Reserves the host that is its name for one namespace."""

    KIND: ClassVar[Kind] = CLUSTER_DOMAIN_CLAIM

    metadata: ObjectMeta = ObjectMeta()
    """Name, identity and labels. The name is the host."""
    spec: ClusterDomainClaimSpec = ClusterDomainClaimSpec()
    """The owner of the host."""
    status: Status = Status()
    """Not used."""
