"""The reconciler of a Configuration: creates a Revision for each generation, and reports the latest ready one. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from api.controllers.reconciler import conditions, objects
from api.controllers.reconciler.actions import Action, Create, Delete, Emit, ReconcileResult
from api.controllers.reconciler.conditions import FALSE, UNKNOWN, YES, Verdict
from api.controllers.revision import revision_gc
from knoll.config.gc import GCConfig
from knoll.resources.conditions import NEW_GENERATION
from knoll.values import kinds, names
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.timestamps import timestamp


@dataclass(frozen=True, slots=True)
class ConfigurationInputs:
    """A Configuration and the objects that its reconciliation needs."""

    configuration: Json
    revisions: Sequence[Json] = ()
    """The Revisions that it owns."""
    namesake: Json | None = None
    """The Revision with the name of the newest generation's Revision, whatever its owner."""
    routes: frozenset[str] = field(default_factory=frozenset)
    """Names of the Routes whose spec or status names this Configuration."""
    gc: GCConfig = field(default_factory=GCConfig)


def reconcile(inputs: ConfigurationInputs, now: float) -> ReconcileResult:
    """Create the newest Revision, delete old ones, and return the status of a Configuration.

    Source: Knative Serving, pkg/reconciler/configuration (behaviour).
    """
    before = inputs.configuration
    if objects.deleting(before):
        return ReconcileResult()
    after = labelled(before, inputs.routes)
    old = objects.status(before)
    status: Json = {"observedGeneration": objects.generation(before)}
    actions: list[Action] = []
    latest = _latest_created(inputs)
    if latest is None and inputs.namesake is not None and objects.is_leftover(inputs.namesake, before):
        verdict = Verdict(UNKNOWN)
    elif latest is None and inputs.namesake is not None:
        name = inputs.namesake["metadata"]["name"]
        message = f'Revision creation failed with message: {kinds.REVISION.id} "{name}" already exists.'
        verdict = Verdict(FALSE, "RevisionFailed", message)
        _keep(old, status, "latestCreatedRevisionName", "latestReadyRevisionName")
    else:
        if latest is None:
            latest = new_revision(after, now)
            created = f'Created Revision "{latest["metadata"]["name"]}"'
            actions += [Create(kinds.REVISION.id, latest), Emit(before, "Normal", "Created", created)]
        actions += _taken_up(before, latest)
        ready = _latest_ready(inputs, latest)
        status["latestCreatedRevisionName"] = latest["metadata"]["name"]
        if ready:
            status["latestReadyRevisionName"] = ready
        verdict = _verdict(latest, ready)
    status["conditions"] = conditions.merged(kinds.CONFIGURATION, before, {"Ready": verdict}, now)
    after = objects.changed(after, new_status=status)
    actions += objects.write(kinds.CONFIGURATION.id, before, after)
    actions += _events(before, after)
    old_ones, requeue_after = revision_gc.superfluous(after, inputs.revisions, inputs.gc, now)
    for revision in old_ones:
        meta = revision["metadata"]
        actions.append(Delete(kinds.REVISION.id, meta["namespace"], meta["name"], meta["uid"]))
    return ReconcileResult(actions, requeue_after)


def read_of_revision(revision: Json) -> object:
    """What the reconciliation of a Configuration reads of its Revisions; equal if a change does not affect it."""
    condition = objects.condition(revision) or {}
    coming_up = condition.get("reason") in _COMING_UP and condition.get("status") != FALSE
    return (
        objects.labels(revision),
        objects.annotations(revision),
        revision["metadata"].get("ownerReferences"),
        objects.deleting(revision),
        objects.observed(revision),
        condition.get("status"),
        () if coming_up else (condition.get("reason"), condition.get("message")),
    )


def revision_name(configuration: Json) -> str:
    """The name of the newest generation's Revision: the template's, else `<configuration>-<generation>`."""
    own = (configuration["spec"]["template"].get("metadata") or {}).get("name")
    return own or names.revision_name(configuration["metadata"]["name"], objects.generation(configuration))


def new_revision(configuration: Json, now: float) -> Json:
    """The Revision of the newest generation."""
    meta, template = configuration["metadata"], configuration["spec"]["template"]
    template_meta = template.get("metadata") or {}
    routes = objects.routes_named(configuration)
    new_labels = {
        **(template_meta.get("labels") or {}),
        well_known.CONFIGURATION: meta["name"],
        well_known.CONFIGURATION_GENERATION: str(objects.generation(configuration)),
        well_known.CONFIGURATION_UID: meta["uid"],
        well_known.ROUTING_STATE: well_known.ACTIVE if routes else well_known.PENDING,
    }
    for name in (well_known.SERVICE, well_known.SERVICE_UID):
        if name in objects.labels(configuration):
            new_labels[name] = objects.labels(configuration)[name]
    new_annotations = {
        **(template_meta.get("annotations") or {}), well_known.ROUTING_STATE_MODIFIED: timestamp(now)
    }  # fmt: skip
    modifier = objects.annotations(configuration).get(well_known.LAST_MODIFIER)
    if modifier:
        new_annotations[well_known.CREATOR] = modifier
    if routes:
        new_annotations[well_known.ROUTES] = objects.routes_text(routes)
    return objects.make(
        kinds.REVISION, kinds.CONFIGURATION, configuration, revision_name(configuration),
        labels=new_labels, annotations=new_annotations, spec=template["spec"],
    )  # fmt: skip


def labelled(configuration: Json, routes: frozenset[str]) -> Json:
    """The Configuration with an annotation that lists the Routes that refer to it."""
    owner = objects.controller_of(configuration)
    route_names = set(routes)
    if owner and owner.get("kind") == "Service":
        # The Service's Route has the same name and may not exist yet.
        route_names.add(owner["name"])
    present = dict(objects.annotations(configuration))
    if route_names:
        present[well_known.ROUTES] = objects.routes_text(route_names)
    else:
        present.pop(well_known.ROUTES, None)
    if present == objects.annotations(configuration):
        return configuration
    return objects.changed(configuration, new_annotations=present)


def _latest_created(inputs: ConfigurationInputs) -> Json | None:
    """The Revision of the newest generation; None if it must be created or its name is taken."""
    configuration, namesake = inputs.configuration, inputs.namesake
    current = str(objects.generation(configuration))
    own_name = (configuration["spec"]["template"].get("metadata") or {}).get("name")
    if not own_name:
        for revision in inputs.revisions:
            if objects.labels(revision).get(well_known.CONFIGURATION_GENERATION) == current:
                return revision
        return None
    if namesake is None or not objects.is_controlled_by(namesake, configuration):
        return None
    if objects.labels(namesake).get(well_known.CONFIGURATION_GENERATION) == current:
        return namesake
    # With a name from the user, an earlier Revision with an equal spec is used again.
    return namesake if namesake["spec"] == configuration["spec"]["template"]["spec"] else None


def _taken_up(configuration: Json, latest: Json) -> list[Action]:
    """Label an earlier Revision with this generation, so that no Revision between them counts as newer."""
    current = str(objects.generation(configuration))
    if objects.labels(latest).get(well_known.CONFIGURATION_GENERATION) == current:
        return []
    new_labels = {**objects.labels(latest), well_known.CONFIGURATION_GENERATION: current}
    return objects.write(kinds.REVISION.id, latest, objects.changed(latest, new_labels=new_labels))


def _latest_ready(inputs: ConfigurationInputs, latest: Json) -> str:
    """Name of the latest ready Revision; never older than the current one, unless the user named an older one."""
    present = objects.status(inputs.configuration).get("latestReadyRevisionName", "")
    if objects.is_ready(latest):
        return str(latest["metadata"]["name"])
    by_name = {revision["metadata"]["name"]: revision for revision in inputs.revisions}
    floor = _generation_of(by_name[present]) if present in by_name else 0
    ready = [
        revision
        for revision in inputs.revisions
        if objects.is_ready(revision) and _generation_of(revision) >= floor and not objects.deleting(revision)
    ]
    if not ready:
        return present if present in by_name else ""
    newest = max(ready, key=_generation_of)
    if _generation_of(newest) == floor and present in by_name:
        return str(present)
    return str(newest["metadata"]["name"])


def _generation_of(revision: Json) -> int:
    text = objects.labels(revision).get(well_known.CONFIGURATION_GENERATION, "")
    return int(text) if text.isdecimal() else 0


def _verdict(latest: Json, ready: str) -> Verdict:
    name = latest["metadata"]["name"]
    if name == ready:
        return YES
    condition = objects.condition(latest)
    if condition is not None and condition["status"] == FALSE:
        return Verdict(
            FALSE, "RevisionFailed", f'Revision "{name}" failed with message: {condition.get("message", "")}.'
        )
    if condition is not None and condition.get("message") and condition.get("reason") not in _COMING_UP:
        # The reason for the delay is shown at once, not only after the progress deadline.
        return Verdict(UNKNOWN, condition["reason"], f'Revision "{name}" is not yet ready: {condition["message"]}')
    return Verdict(UNKNOWN)


_COMING_UP = ("Deploying", "ResolvingDigests", NEW_GENERATION)
"""Reasons of a Revision that is starting normally."""


def _keep(old: Json, status: Json, *names: str) -> None:
    for name in names:
        if name in old:
            status[name] = old[name]


def _events(before: Json, after: Json) -> list[Action]:
    result: list[Action] = []
    was, now_is = (objects.status(body).get("latestReadyRevisionName", "") for body in (before, after))
    if now_is and not was:
        result.append(Emit(before, "Normal", "ConfigurationReady", "Configuration becomes ready"))
    if now_is and now_is != was:
        result.append(Emit(before, "Normal", "LatestReadyUpdate", f'LatestReadyRevisionName updated to "{now_is}"'))
    failed, had = objects.condition(after), objects.condition(before)
    if failed and failed["status"] == FALSE and failed != had:
        latest = objects.status(after).get("latestCreatedRevisionName", "")
        result.append(Emit(before, "Warning", "LatestCreatedFailed", f'Latest created revision "{latest}" has failed'))
    return result
