"""The reconciler of a Service: creates a Configuration and a Route of its name, and copies their status. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.controllers.reconciler import conditions, objects
from api.controllers.reconciler.actions import Action, Create, Emit, ReconcileResult
from api.controllers.reconciler.conditions import FALSE, TRUE, UNKNOWN, Verdict
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json

CONFIGURATIONS_READY = "ConfigurationsReady"
ROUTES_READY = "RoutesReady"

UNKNOWN_SECONDS = 1.0
"""How long a failed new generation is shown as Unknown first, in seconds. `kn` reads the Service after its write and
then waits for the next event; if the failure is in what it reads, no event follows, and it waits for 600 s.
Source: knative/client, pkg/wait/wait_for_ready.go."""

_NOT_TO_CONFIGURATION = {well_known.LAST_APPLIED, well_known.ROLLOUT_DURATION}
_NOT_TO_ROUTE = {well_known.LAST_APPLIED}


@dataclass(frozen=True, slots=True)
class ServiceInputs:
    """A Service and the objects of its name."""

    service: Json
    configuration: Json | None = None
    """The Configuration of the Service's name, whatever its owner."""
    route: Json | None = None
    """The Route of the Service's name, whatever its owner."""
    named_revision: Json | None = None
    """The Revision that the template names; None if it names none or it does not exist."""
    shown: float | None = None
    """Epoch seconds at which this process first showed the newest generation as Unknown; None if it did not."""


def reconcile(inputs: ServiceInputs, now: float) -> ReconcileResult:
    """Return the children and the status of a Service.

    Source: Knative Serving, pkg/reconciler/service (behaviour).
    """
    service = inputs.service
    if objects.deleting(service):
        return ReconcileResult()
    actions: list[Action] = []
    old = objects.status(service)
    status: Json = {
        name: old[name]
        for name in ("url", "address", "traffic", "latestCreatedRevisionName", "latestReadyRevisionName")
        if name in old
    }
    configurations = _configuration(inputs, status, actions)
    routes = _route(inputs, status, actions, serialized=configurations.reason == "OutOfDate")
    verdicts = {CONFIGURATIONS_READY: configurations, ROUTES_READY: routes}
    if any(isinstance(action, Create) for action in actions):
        # Children have a status when they are created: the Service's follows from it.
        return ReconcileResult(actions, again=True)
    held = _held_seconds(inputs, now) if FALSE in (configurations.status, routes.status) else 0.0
    if held:
        verdicts = {name: _not_final(verdict) for name, verdict in verdicts.items()}
    status["observedGeneration"] = objects.generation(service)
    status["conditions"] = conditions.merged(kinds.SERVICE, service, verdicts, now)
    after = objects.changed(service, new_status=status)
    return ReconcileResult([*actions, *objects.write(kinds.SERVICE.id, service, after)], held or None)


def _held_seconds(inputs: ServiceInputs, now: float) -> float:
    """Seconds for which a failure of the newest generation is still shown as Unknown; 0 if the failure may be shown."""
    service = inputs.service
    ready = objects.condition(service) if objects.observed(service) else None
    if ready is None:
        return UNKNOWN_SECONDS
    if ready["status"] != UNKNOWN:
        return 0.0
    # If another process showed it, the condition's last transition is used, which is not later.
    shown = inputs.shown if inputs.shown is not None else objects.epoch(ready["lastTransitionTime"])
    return max(0.0, shown + UNKNOWN_SECONDS - now)


def _not_final(verdict: Verdict) -> Verdict:
    return Verdict(UNKNOWN, verdict.reason, verdict.message) if verdict.status == FALSE else verdict


def desired_configuration(service: Json, existing: Json | None = None) -> Json:
    """The Configuration of a Service; made from `existing` if there is one."""
    name, uid = service["metadata"]["name"], service["metadata"]["uid"]
    routes = {name, *(objects.routes_named(existing) if existing else ())}
    new_labels = {**objects.labels(service), well_known.SERVICE: name, well_known.SERVICE_UID: uid}
    new_annotations = {
        **_without(objects.annotations(service), _NOT_TO_CONFIGURATION), well_known.ROUTES: objects.routes_text(routes)
    }  # fmt: skip
    spec = {"template": service["spec"]["template"]}
    if existing:
        return objects.changed(existing, new_labels=new_labels, new_annotations=new_annotations, spec=spec)
    return objects.make(
        kinds.CONFIGURATION, kinds.SERVICE, service, name,
        labels=new_labels, annotations=new_annotations, spec=spec,
    )  # fmt: skip


def desired_route(service: Json, existing: Json | None = None) -> Json:
    """The Route of a Service; made from `existing` if there is one."""
    name = service["metadata"]["name"]
    new_labels = {**objects.labels(service), well_known.SERVICE: name}
    new_annotations = _without(objects.annotations(service), _NOT_TO_ROUTE)
    targets = service["spec"].get("traffic") or [{"latestRevision": True, "percent": 100}]
    spec = {
        "traffic": [
            dict(target) if target.get("revisionName") else {**target, "configurationName": name} for target in targets
        ]
    }
    if existing:
        return objects.changed(existing, new_labels=new_labels, new_annotations=new_annotations, spec=spec)
    return objects.make(
        kinds.ROUTE, kinds.SERVICE, service, name,
        labels=new_labels, annotations=new_annotations, finalizers=[well_known.ROUTE_FINALIZER], spec=spec,
    )  # fmt: skip


def _configuration(inputs: ServiceInputs, status: Json, actions: list[Action]) -> Verdict:
    service, existing = inputs.service, inputs.configuration
    if existing is None:
        actions += _created(service, kinds.CONFIGURATION, desired_configuration(service))
        return _OUT_OF_DATE_CONFIGURATION
    if objects.is_leftover(existing, service):
        return _OUT_OF_DATE_CONFIGURATION
    if not objects.is_controlled_by(existing, service):
        return _not_owned("Configuration", service)
    desired = desired_configuration(service, existing)
    actions += objects.write(kinds.CONFIGURATION.id, existing, desired)
    if desired["spec"] != existing["spec"] or not objects.observed(existing):
        return _OUT_OF_DATE_CONFIGURATION
    current = objects.status(existing)
    for name in ("latestCreatedRevisionName", "latestReadyRevisionName"):
        status.pop(name, None)
        if name in current:
            status[name] = current[name]
    return conditions.verdict_of(existing)


def _route(inputs: ServiceInputs, status: Json, actions: list[Action], *, serialized: bool) -> Verdict:
    service, configuration, existing = inputs.service, inputs.configuration, inputs.route
    byo = (service["spec"]["template"].get("metadata") or {}).get("name", "")
    if byo and name_is_taken(configuration, inputs.named_revision):
        return Verdict(
            FALSE,
            "RevisionNameTaken",
            f'The revision name "{byo}" is taken by a conflicting Revision, so traffic will not be migrated',
        )
    if existing is None:
        actions += _created(service, kinds.ROUTE, desired_route(service))
        return _OUT_OF_DATE_ROUTE
    if objects.is_leftover(existing, service) or objects.deleting(existing):
        return _OUT_OF_DATE_ROUTE
    if not objects.is_controlled_by(existing, service):
        return _not_owned("Route", service)
    if byo and serialized:
        # Traffic to a Revision named by the user moves only after the Configuration has created that Revision.
        return _OUT_OF_DATE_ROUTE
    desired = desired_route(service, existing)
    actions += objects.write(kinds.ROUTE.id, existing, desired)
    if desired["spec"] != existing["spec"] or not objects.observed(existing):
        return _OUT_OF_DATE_ROUTE
    current = objects.status(existing)
    for name in ("url", "address", "traffic"):
        status.pop(name, None)
        if name in current:
            status[name] = current[name]
    verdict = conditions.verdict_of(existing)
    if verdict.status == TRUE and not _migrated(existing, configuration):
        return Verdict(UNKNOWN, "TrafficNotMigrated", "Traffic is not yet migrated to the latest revision.")
    return verdict


def name_is_taken(configuration: Json | None, revision: Json | None) -> bool:
    """Whether the Revision that the template names belongs to another Configuration or template.

    Args:
        configuration: None if it does not exist yet, in which case any Revision of that name is foreign.
        revision: of the name in the template; None if it does not exist.
    """
    if revision is None:
        return False
    if configuration is None:
        return True
    if objects.is_leftover(revision, configuration):
        return False
    if not objects.is_controlled_by(revision, configuration):
        return True
    template = configuration["spec"]["template"]
    if revision["metadata"]["name"] != (template.get("metadata") or {}).get("name"):
        # The Configuration does not have the newest template yet.
        return False
    if objects.labels(revision).get(well_known.CONFIGURATION_GENERATION) == str(objects.generation(configuration)):
        return False
    return bool(revision["spec"] != template["spec"])


def _migrated(route: Json, configuration: Json | None) -> bool:
    """Whether the Route's status matches its spec."""
    ready = objects.status(configuration or {}).get("latestReadyRevisionName")
    desired = {
        (
            target.get("revisionName") or ready,
            target.get("tag", ""),
            bool(target.get("latestRevision", not target.get("revisionName"))),
        )
        for target in route["spec"].get("traffic") or ()
    }
    actual = {
        (target.get("revisionName"), target.get("tag", ""), bool(target.get("latestRevision")))
        for target in objects.status(route).get("traffic") or ()
    }
    return desired == actual


def _created(service: Json, kind: kinds.Kind, body: Json) -> list[Action]:
    message = f'Created {kind.kind} "{body["metadata"]["name"]}"'
    return [Create(kind.id, body), Emit(service, "Normal", "Created", message)]


def _not_owned(kind: str, service: Json) -> Verdict:
    name = service["metadata"]["name"]
    return Verdict(FALSE, "NotOwned", f'There is an existing {kind} "{name}" that we do not own.')


def _without(given: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if name not in names}


_OUT_OF_DATE_CONFIGURATION = Verdict(
    UNKNOWN, "OutOfDate", "The Configuration is still working to reflect the latest desired specification."
)
_OUT_OF_DATE_ROUTE = Verdict(
    UNKNOWN, "OutOfDate", "The Route is still working to reflect the latest desired specification."
)
