"""The reconciler of a DomainMapping: routes another host to a Service, with the traffic of its Route. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from api.controllers.reconciler import conditions, objects
from api.controllers.reconciler.actions import Action, PutRoute, ReconcileResult, RemoveRoute
from api.controllers.reconciler.conditions import (
    CERTIFICATE_PROVISIONED,
    FALSE,
    INGRESS_READY,
    TRUE,
    UNKNOWN,
    YES,
    Verdict,
)
from api.controllers.route import domain_claim
from api.controllers.route.hosts import Naming, public_url
from knoll.messages.routing import RouteEntry
from knoll.values import kinds, names
from knoll.values import labels as well_known
from knoll.values.json import Json

DOMAIN_CLAIMED = "DomainClaimed"
REFERENCE_RESOLVED = "ReferenceResolved"

_PREFIX = "domainmapping:"
"""Prefix of a DomainMapping's field in the routing table. Names of Routes cannot contain a colon."""

# Messages of Knative Serving, pkg/apis/serving/v1beta1/domainmapping_lifecycle.go.
_NO_TLS = Verdict(TRUE, "TLSNotEnabled", "external-domain-tls is not enabled")
_OWN_CERTIFICATE = Verdict(TRUE, "CertificateExternallyProvided", "TLS certificate was provided externally")
_NOT_CONFIGURED = Verdict(UNKNOWN, "IngressNotConfigured", "Ingress has not yet been reconciled.")


@dataclass(frozen=True, slots=True)
class DomainMappingInputs:
    """A DomainMapping and its target."""

    mapping: Json
    rivals: Sequence[Json] = ()
    """DomainMappings of the same host in other namespaces."""
    claim: Json | None = None
    """The ClusterDomainClaim of the host."""
    claims_itself: bool = True
    """Whether a missing claim is created."""
    unclaimable: str = ""
    """Why no DomainMapping of this namespace can have the host; empty if one can."""
    target: Json | None = None
    """The Service or Route that it names."""
    target_entry: RouteEntry | None = None
    """The routing entry of the target's Route."""
    naming: Naming = field(default_factory=Naming)
    programmed: RouteEntry | None = None
    """Its own entry in the routing table."""
    followers: int = 0
    acknowledged: bool = False
    """Whether every live activator has acknowledged `programmed`."""


def path_of(namespace: str, host: str) -> str:
    """The field of the routing table."""
    return f"{namespace}/{_PREFIX}{host}"


def host_in(name: str) -> str | None:
    """The host of a DomainMapping's field in the routing table, given its part after the slash; None for a Route's."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None


def reconcile(inputs: DomainMappingInputs, now: float) -> ReconcileResult:
    """Return the routing entry, the claim and the status of a DomainMapping.

    Source: Knative Serving, pkg/reconciler/domainmapping (behaviour).
    """
    mapping, naming = inputs.mapping, inputs.naming
    if objects.deleting(mapping):
        return ReconcileResult()
    meta, spec = mapping["metadata"], mapping["spec"]
    host, path = str(meta["name"]), path_of(meta["namespace"], str(meta["name"]))
    own_certificate = bool((spec.get("tls") or {}).get("secretName"))
    url = public_url(host, naming, certificate=own_certificate)
    claimed, claims = _claimed(inputs)
    resolved = _resolved(inputs)
    after_status: list[Action] = []
    ingress = conditions.verdict_of(mapping, INGRESS_READY)
    waits = False
    if claimed.status != TRUE or resolved.status == FALSE:
        ingress = _NOT_CONFIGURED
        if inputs.programmed:
            after_status.append(RemoveRoute(path))
    else:
        entry = _entry(inputs, host, naming.https_port if own_certificate and _redirected(mapping, naming) else 0)
        if entry is None:
            ingress = Verdict(UNKNOWN, "IngressNotConfigured", "The Service or Route has no ready Revision yet.")
        else:
            ingress = _ingress(inputs, entry, ingress)
            waits = ingress.status != TRUE
            if entry != inputs.programmed:
                after_status.append(PutRoute(path, entry))
    verdicts = {
        CERTIFICATE_PROVISIONED: _OWN_CERTIFICATE if own_certificate else _NO_TLS,
        DOMAIN_CLAIMED: claimed,
        INGRESS_READY: ingress,
        REFERENCE_RESOLVED: resolved,
    }
    status: Json = {
        "observedGeneration": objects.generation(mapping),
        "url": url,
        "address": {"url": url},
        "conditions": conditions.merged(kinds.DOMAIN_MAPPING, mapping, verdicts, now),
    }
    after = objects.changed(mapping, new_status=status)
    return ReconcileResult(
        [*claims, *objects.write(kinds.DOMAIN_MAPPING.id, mapping, after), *after_status], waits=waits
    )


def _redirected(mapping: Json, naming: Naming) -> bool:
    _, own = well_known.find_annotation(objects.annotations(mapping), well_known.HTTP_PROTOCOL)
    return naming.network.http_redirected if own is None else own.lower() == "redirected"


def removed(namespace: str, host: str, programmed: RouteEntry | None) -> ReconcileResult:
    """Clean up after a deleted DomainMapping."""
    return ReconcileResult([RemoveRoute(path_of(namespace, host))] if programmed else [])


def _claimed(inputs: DomainMappingInputs) -> tuple[Verdict, list[Action]]:
    """Whether the namespace owns the host, and the claim to create for it.

    Source: Knative Serving, pkg/reconciler/domainmapping, `reconcileDomainClaim`; reasons are Knative's.
    """
    meta = inputs.mapping["metadata"]
    host, namespace, claim = str(meta["name"]), str(meta["namespace"]), inputs.claim
    if inputs.unclaimable:
        return Verdict(FALSE, "DomainClaimFailed", f'invalid name "{host}": {inputs.unclaimable}'), []
    if claim is not None and not objects.deleting(claim):
        return (YES if domain_claim.owner(claim) == namespace else _NOT_OWNED), []
    if not inputs.claims_itself:
        message = (
            f'no ClusterDomainClaim found for domain "{host}" '
            "(and autocreate-cluster-domain-claims property is not true)"
        )
        return Verdict(FALSE, _NOT_OWNED.reason, message), []
    if min((inputs.mapping, *inputs.rivals), key=_precedence) is not inputs.mapping:
        return _NOT_OWNED, []
    return YES, [domain_claim.created(host, namespace)]


_NOT_OWNED = Verdict(FALSE, "DomainAlreadyClaimed", "The domain name is already in use by another DomainMapping")


def _precedence(mapping: Json) -> tuple[bool, str, str]:
    """The present owner of the host comes first, else the oldest mapping."""
    meta = mapping["metadata"]
    has_it = objects.condition_status(mapping, DOMAIN_CLAIMED) == TRUE and not objects.deleting(mapping)
    return (not has_it, meta["creationTimestamp"], meta["namespace"])


def _resolved(inputs: DomainMappingInputs) -> Verdict:
    """Whether the target exists. Source of the message: knative.dev/pkg, resolver/addressable_resolver.go."""
    if inputs.target is not None and not objects.deleting(inputs.target):
        return YES
    ref = inputs.mapping["spec"]["ref"]
    kind, name = kinds.ROUTE if ref.get("kind") == "Route" else kinds.SERVICE, ref.get("name", "")
    path = f"{inputs.mapping['metadata']['namespace']}/{name}"
    return Verdict(FALSE, "ResolveFailed", f'failed to get object {path}: {kind.id} "{name}" not found')


def _entry(inputs: DomainMappingInputs, host: str, redirect: int) -> RouteEntry | None:
    if inputs.target is None or inputs.target_entry is None:
        return None
    meta = inputs.target["metadata"]
    shares = inputs.target_entry.local_hosts.get(names.local_host(meta["name"], meta["namespace"]))
    if shares is None:
        return None
    named = {share.revision for share in shares}
    planes = {path: plane for path, plane in inputs.target_entry.revisions.items() if path in named}
    missing = tuple(path for path in inputs.target_entry.missing if path in named)
    return RouteEntry(
        {host.lower(): shares}, planes, sticky=inputs.target_entry.sticky, redirect=redirect, mapping=True,
        missing=missing,
    )  # fmt: skip


def _ingress(inputs: DomainMappingInputs, entry: RouteEntry, before: Verdict) -> Verdict:
    if entry == inputs.programmed and (before.status == TRUE or (inputs.acknowledged and inputs.followers)):
        return YES
    if not inputs.followers:
        return Verdict(UNKNOWN, "IngressNotConfigured", "No activator is running, so nothing can be routed; start one.")
    return _NOT_CONFIGURED
