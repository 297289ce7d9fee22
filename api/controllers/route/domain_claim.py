"""ClusterDomainClaim: one that a DomainMapping made for itself goes with it; others are their administrator's. Pure."""

from dataclasses import dataclass

from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Create, Delete, ReconcileResult
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json


@dataclass(frozen=True, slots=True)
class Observed:
    """A claim and whether it is in use."""

    claim: Json
    mapping: Json | None = None
    """The DomainMapping of the claim's host in the namespace that owns it."""


def owner(claim: Json) -> str:
    """The namespace that may map the host."""
    return str((claim.get("spec") or {}).get("namespace") or "")


def created(host: str, namespace: str) -> Create:
    """The claim that a DomainMapping makes for itself."""
    body: Json = {
        "apiVersion": kinds.CLUSTER_DOMAIN_CLAIM.api_version,
        "kind": kinds.CLUSTER_DOMAIN_CLAIM.kind,
        "metadata": {"name": host, "annotations": {well_known.AUTOCREATED: namespace}},
        "spec": {"namespace": namespace},
    }
    return Create(kinds.CLUSTER_DOMAIN_CLAIM.id, body)


def reconcile(observed: Observed) -> ReconcileResult:
    """Delete a claim that was made for a DomainMapping which is gone.

    Source: Knative Serving, pkg/reconciler/domainmapping, `FinalizeKind`, which does so while claims are made by
    themselves; here the annotation says which were.
    """
    claim = observed.claim
    made = objects.annotations(claim).get(well_known.AUTOCREATED) == owner(claim)
    if not made or observed.mapping is not None or objects.deleting(claim):
        return ReconcileResult()
    meta = claim["metadata"]
    return ReconcileResult([Delete(kinds.CLUSTER_DOMAIN_CLAIM.id, "", meta["name"], meta["uid"])])
