"""The reconciler of a Route: sends traffic to ready Revisions. Pure.

A Route is ready when all of its traffic is assigned and every activator has acknowledged its routing entry: the
reconciler decides these conditions, and `knoll.resources.conditions` sums them up as Ready.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from api.controllers.reconciler import conditions, objects
from api.controllers.reconciler.actions import Action, Emit, PutRoute, ReconcileResult, RemoveRoute
from api.controllers.reconciler.conditions import (
    CERTIFICATE_PROVISIONED,
    DOMAIN_CONFLICT,
    FALSE,
    INGRESS_READY,
    NOT_OWNED,
    TRUE,
    UNKNOWN,
    YES,
    Verdict,
)
from api.controllers.route import hosts, placeholder_services, rollback, rollout, traffic
from api.controllers.route.hosts import Naming
from api.controllers.route.rollback import Trial
from api.controllers.route.rollout import RolloutProgress
from api.controllers.route.rollout_instances import RevisionLoad
from api.controllers.route.traffic import Assignment, RouteTarget
from knoll.messages.hosts import Claim
from knoll.messages.routing import RouteEntry
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json

ALL_TRAFFIC_ASSIGNED = "AllTrafficAssigned"

# Messages of Knative Serving, pkg/apis/serving/v1/route_lifecycle.go; those after them are Knoll's own.
_NO_TLS = Verdict(TRUE, "TLSNotEnabled", "external-domain-tls is not enabled")
_NOT_ACKNOWLEDGED = Verdict(UNKNOWN, "IngressNotConfigured", "Ingress has not yet been reconciled.")
_ROLLING_OUT = Verdict(UNKNOWN, "RolloutInProgress", "A gradual rollout of the latest revision(s) is in progress.")
_LEFTOVER = Verdict(UNKNOWN, "IngressNotConfigured", "An earlier Route of this name is being cleaned up.")
_NO_ACTIVATOR = Verdict(
    UNKNOWN, "IngressNotConfigured", "No activator is running, so nothing can be routed; start one."
)


@dataclass(frozen=True, slots=True)
class RouteInputs:
    """A Route and what it sends traffic to."""

    route: Json
    configurations: Mapping[str, Json] = field(default_factory=dict)
    """By name, those that the targets name."""
    revisions: Mapping[str, Json] = field(default_factory=dict)
    """By name, those that the targets name, and the latest ready ones of `configurations`."""
    core_services: Mapping[str, Json] = field(default_factory=dict)
    """By name: those with a name that the Route needs, and all that it owns."""
    naming: Naming = field(default_factory=Naming)
    rollout_seconds: float = 0.0
    """How long a gradual rollout takes if the Route does not set it; 0 disables gradual rollouts."""
    programmed: RouteEntry | None = None
    """The Route's entry in the routing table."""
    rivals: Mapping[str, Claim] = field(default_factory=dict)
    """Hosts of the Route that other entries claim as well, with the strongest of those claims."""
    followers: int = 0
    """Live activators."""
    loads: Mapping[str, RevisionLoad] = field(default_factory=dict)
    """By name, the load of the Revisions that share traffic in a rollout."""
    worse: Mapping[str, str] = field(default_factory=dict)
    """By name, why a Revision performs worse than its predecessor."""
    acknowledged: bool = False
    """Whether every activator has acknowledged `programmed`."""


def reconcile(inputs: RouteInputs, now: float) -> ReconcileResult:
    """Return the routing entry, the placeholder Services and the status of a Route.

    The status says that the entry is not acknowledged *before* the entry is put. So IngressReady True with an unchanged
    entry is reliable, even after a crash between the two writes.

    Source: Knative Serving, pkg/reconciler/route (behaviour).
    """
    route, naming = inputs.route, inputs.naming
    if objects.deleting(route):
        return _finalized(inputs)
    actions = placeholder_services.missing_or_stale(route, naming, inputs.core_services)
    local_tags = placeholder_services.local_tags(route, naming, inputs.core_services)
    assignment = traffic.assign(route, inputs.configurations, inputs.revisions)
    decision = rollback.evaluate(assignment.targets, route, inputs.revisions, inputs.worse, now)
    assignment = replace(assignment, targets=decision.targets)
    old = objects.status(route)
    status: Json = {
        "observedGeneration": objects.generation(route),
        "url": old.get("url") or hosts.url(route, naming, local="" in local_tags),
        "address": {"url": hosts.local_url(route, naming)},
    }
    ingress = conditions.verdict_of(route, INGRESS_READY)
    after_status: list[Action] = []
    waiting, requeue_after = False, None
    targets: tuple[RouteTarget, ...] = ()
    taken = placeholder_services.foreign(route, naming, inputs.core_services)
    if taken:
        ingress = Verdict(FALSE, NOT_OWNED, f'There is an existing placeholder Service "{taken}" that we do not own.')
    elif placeholder_services.leftover(route, naming, inputs.core_services):
        ingress = _LEFTOVER
    elif assignment.targets:
        status["url"] = hosts.url(route, naming, local="" in local_tags)
        progress, entry = _progress(inputs, assignment, local_tags, now)
        targets = progress.targets
        delays = [delay for delay in (progress.requeue_after, decision.requeue_after) if delay is not None]
        requeue_after = min(delays, default=None)
        after_status += _rollback_events(route, decision.rolled_back)
        after_status += placeholder_services.superfluous(route, naming, inputs.core_services)
        if conflict := _conflict(inputs, entry):
            ingress = Verdict(FALSE, DOMAIN_CONFLICT, f"{_CONFLICT}: {conflict}")
        else:
            ingress = _rolling_out(progress) if progress.clocks else _ingress(inputs, entry, ingress)
            waiting = ingress.status != TRUE and not (entry == inputs.programmed and inputs.acknowledged)
            if entry != inputs.programmed:
                after_status.append(PutRoute(objects.path_of(route), entry))
        notes = {well_known.ROLLOUT_IN_PROGRESS: rollout.encode_clocks(progress.clocks)} if progress.clocks else {}
        notes |= {well_known.ROLLBACK: rollback.encode_trials(decision.trials)} if decision.trials else {}
        if notes:
            status["annotations"] = notes
    elif inputs.programmed:
        stays = traffic.with_missing(inputs.programmed, inputs.revisions)
        if stays != inputs.programmed:
            after_status.append(PutRoute(objects.path_of(route), stays))
    if targets:
        status["traffic"] = traffic.status_of(targets, route, naming, local_tags)
    else:
        status.update({name: old[name] for name in ("traffic", "annotations") if name in old})
    verdicts = {
        ALL_TRAFFIC_ASSIGNED: _rolled_back(decision.trials) or assignment.verdict,
        CERTIFICATE_PROVISIONED: _NO_TLS,
        INGRESS_READY: ingress,
    }
    status["conditions"] = conditions.merged(kinds.ROUTE, route, verdicts, now)
    finalizers = list(route["metadata"].get("finalizers") or ())
    if well_known.ROUTE_FINALIZER not in finalizers:
        finalizers.append(well_known.ROUTE_FINALIZER)
    after = objects.changed(route, new_status=status, finalizers=finalizers)
    actions += objects.write(kinds.ROUTE.id, route, after)
    # The next step of a rollout or a trial depends on the shares that the status shows.
    again = is_moving(after) and after != route
    return ReconcileResult([*actions, *after_status], requeue_after, waits=waiting, again=again)


def read_of_configuration(configuration: Json) -> object:
    """What the reconciliation of a Route reads of a Configuration; equal if a change does not affect it."""
    return (
        objects.deleting(configuration),
        objects.status(configuration).get("latestReadyRevisionName"),
        objects.observed(configuration) and objects.condition_status(configuration) == FALSE,
    )


def read_of_revision(revision: Json) -> object:
    """What the reconciliation of a Route reads of a Revision, or of its scale, which the Revision's status follows."""
    set_by_controllers = (well_known.ROUTES, well_known.ROUTING_STATE_MODIFIED, *well_known.OF_ROLLOUT)
    return (
        revision["metadata"]["uid"],
        objects.deleting(revision),
        objects.is_ready(revision),
        objects.condition_status(revision) == FALSE,
        objects.labels(revision).get(well_known.SERVICE),
        {key: value for key, value in objects.annotations(revision).items() if key not in set_by_controllers},
        objects.status(revision).get("annotations"),
    )


def is_moving(route: Json) -> bool:
    """Whether the shares of a Route depend on the number of instances: a rollout or a trial is in progress."""
    return bool(objects.status(route).get("annotations"))


def removed(namespace: str, name: str, programmed: RouteEntry | None) -> ReconcileResult:
    """Clean up after a deleted Route."""
    return ReconcileResult([RemoveRoute(f"{namespace}/{name}")] if programmed else [])


def _progress(
    inputs: RouteInputs, assignment: Assignment, local_tags: frozenset[str], now: float
) -> tuple[RolloutProgress, RouteEntry]:
    """Advance the rollouts; returns their progress and the routing entry for it."""
    route, duration = inputs.route, rollout.duration_of(inputs.route, inputs.rollout_seconds)

    def at(acknowledged: bool) -> tuple[RolloutProgress, RouteEntry]:
        advanced = rollout.advance(
            assignment.targets, route, inputs.revisions, duration, acknowledged, now, inputs.loads
        )
        entry = traffic.entry_of(advanced.targets, route, inputs.revisions, inputs.naming, local_tags)
        return advanced, msgspec.structs.replace(entry, since=_since(inputs, entry, now))

    progress, entry = at(acknowledged=False)
    if progress.clocks and inputs.acknowledged and entry == inputs.programmed:
        return at(acknowledged=True)
    return progress, entry


def _since(inputs: RouteInputs, entry: RouteEntry, now: float) -> dict[str, float]:
    """When each host was claimed: as in the table, or for new hosts when their placeholder was created."""
    route, naming = inputs.route, inputs.naming
    before = inputs.programmed.since if inputs.programmed else {}
    result: dict[str, float] = {}
    for name, tag in placeholder_services.needed_names(route, naming).items():
        host = hosts.public_host(route, naming, tag)
        if host in entry.hosts:
            made = objects.created(inputs.core_services[name]) if name in inputs.core_services else float(int(now))
            result[host] = before.get(host, made)
    return result


def _conflict(inputs: RouteInputs, entry: RouteEntry) -> str:
    """A host of the entry that belongs to another Route; empty if there is none."""
    path = objects.path_of(inputs.route)
    return next((host for host in entry.hosts if _loses(inputs.rivals.get(host), entry.claim(path, host))), "")


def _loses(rival: Claim | None, own: Claim) -> bool:
    return rival is not None and rival < own


_CONFLICT = "Ingress rejected as its domain conflicts with another ingress"
"""The message of Knative's ingress controllers (net-kourier, pkg/reconciler/ingress)."""


def _rolled_back(trials: Sequence[Trial]) -> Verdict | None:
    """AllTrafficAssigned is False after a rollback, so that clients waiting for the newest Revision see it."""
    sentences = [
        f"Traffic was rolled back from {trial.revision} to {trial.good}: {trial.why}." for trial in trials if trial.why
    ]
    return Verdict(FALSE, "RolledBack", " ".join(sentences)) if sentences else None


def _rollback_events(route: Json, rolled_back: Sequence[Trial]) -> list[Action]:
    moves = [(f"Traffic was rolled back from {trial.revision} to {trial.good}", trial.why) for trial in rolled_back]
    return [Emit(route, "Warning", "RolledBack", f"{move}: {reason}") for move, reason in moves]


def _rolling_out(progress: RolloutProgress) -> Verdict:
    waiting = [clock for clock in progress.clocks if clock.waits_since]
    if not waiting:
        return _ROLLING_OUT
    sentences = [
        f"{clock.revision} gets its share of traffic when {clock.wants} of its instances are ready."
        for clock in waiting
    ]
    return Verdict(UNKNOWN, _ROLLING_OUT.reason, " ".join(sentences))


def _ingress(inputs: RouteInputs, entry: RouteEntry, before: Verdict) -> Verdict:
    if entry != inputs.programmed:
        return _NOT_ACKNOWLEDGED if inputs.followers else _NO_ACTIVATOR
    if before.status == TRUE:
        return YES
    if not inputs.followers:
        return _NO_ACTIVATOR
    return YES if inputs.acknowledged else _NOT_ACKNOWLEDGED


def _finalized(inputs: RouteInputs) -> ReconcileResult:
    route = inputs.route
    actions: list[Action] = []
    if inputs.programmed:
        actions.append(RemoveRoute(objects.path_of(route)))
    left = [name for name in route["metadata"].get("finalizers") or () if name != well_known.ROUTE_FINALIZER]
    actions += objects.write(kinds.ROUTE.id, route, objects.changed(route, finalizers=left))
    return ReconcileResult(actions)
