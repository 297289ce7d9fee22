"""The reconciler of a ClusterDomainClaim: deletes one that was created for a deleted DomainMapping. Pure.

Claims that an administrator created are left alone.
"""

from dataclasses import dataclass

from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Create, Delete, ReconcileResult
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json


@dataclass(frozen=True, slots=True)
class DomainClaimInputs:
    """A claim and its DomainMapping."""

    claim: Json
    mapping: Json | None = None
    """The DomainMapping of the claim's host in the namespace that owns it."""


def owner(claim: Json) -> str:
    """The namespace that may map the host."""
    return str((claim.get("spec") or {}).get("namespace") or "")


def created(host: str, namespace: str) -> Create:
    """Create the claim for a DomainMapping."""
    body: Json = {
        "apiVersion": kinds.CLUSTER_DOMAIN_CLAIM.api_version,
        "kind": kinds.CLUSTER_DOMAIN_CLAIM.kind,
        "metadata": {"name": host, "annotations": {well_known.AUTOCREATED: namespace}},
        "spec": {"namespace": namespace},
    }
    return Create(kinds.CLUSTER_DOMAIN_CLAIM.id, body)


def reconcile(inputs: DomainClaimInputs) -> ReconcileResult:
    """Delete a claim that was created for a deleted DomainMapping.

    Source: Knative Serving, pkg/reconciler/domainmapping, `FinalizeKind`, which deletes claims while they are created
    automatically; here an annotation marks the automatic ones.
    """
    claim = inputs.claim
    made = objects.annotations(claim).get(well_known.AUTOCREATED) == owner(claim)
    if not made or inputs.mapping is not None or objects.deleting(claim):
        return ReconcileResult()
    meta = claim["metadata"]
    return ReconcileResult([Delete(kinds.CLUSTER_DOMAIN_CLAIM.id, "", meta["name"], meta["uid"])])
