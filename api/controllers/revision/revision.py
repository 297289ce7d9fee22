"""The reconciler of a Revision: requests image digests and reports the state of its instances. Pure.

The autoscaler starts the instances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.controllers.reconciler import conditions, objects
from api.controllers.reconciler.actions import Action, Emit, Forget, ReconcileResult, ResolveImages
from api.controllers.reconciler.conditions import FALSE, TRUE, UNKNOWN, YES, Verdict
from api.controllers.route import route_labeler
from knoll.messages import builds
from knoll.messages.builds import Resolution
from knoll.messages.scale import ScaleStatus
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json

ACTIVE = "Active"
CONTAINER_HEALTHY = "ContainerHealthy"
RESOURCES_AVAILABLE = "ResourcesAvailable"

LOST_SECONDS = 120.0
"""Interval at which an unanswered look-up is requested again, in seconds: Redis may have lost the request."""
REPEAT_SECONDS = (10.0, 600.0)
"""Shortest and longest delay before a failed look-up is repeated. The delay doubles as the Revision gets older."""


@dataclass(frozen=True, slots=True)
class RevisionInputs:
    """A Revision and its state as other processes report it."""

    revision: Json
    configuration: Json | None = None
    routes: Mapping[str, Json] = field(default_factory=dict)
    """By name, those that concern it (see `route_labeler.labelled`)."""
    resolution: Resolution | None = None
    scale: ScaleStatus | None = None
    log_url: str = ""
    """URL of its log; `${REVISION_UID}` is replaced by its uid."""
    asked: float = 0.0
    """Epoch seconds at which this process last requested its digests; 0 if it has not."""


def reconcile(inputs: RevisionInputs, now: float) -> ReconcileResult:
    """Return the labels and the status of a Revision, and request its digests if they are missing.

    Source: Knative Serving, pkg/reconciler/revision and pkg/reconciler/labeler (behaviour).
    """
    before = inputs.revision
    if objects.deleting(before):
        return ReconcileResult()
    uid = before["metadata"]["uid"]
    resolution = inputs.resolution if inputs.resolution and inputs.resolution.uid == uid else None
    scale = inputs.scale if inputs.scale and inputs.scale.uid == uid else None
    status: Json = {
        "observedGeneration": objects.generation(before),
        "actualReplicas": scale.actual if scale else 0,
        "desiredReplicas": scale.desired if scale else 0,
    }
    if inputs.log_url:
        status["logUrl"] = inputs.log_url.replace("${REVISION_UID}", uid)
    if scale and scale.rollback:
        # The Route reads it here and rolls back.
        status["annotations"] = {well_known.ROLLBACK: scale.rollback}
    resolved = _container_statuses(before, resolution)
    status.update(resolved)
    actions, requeue_after = _ask(inputs, resolution, bool(resolved), now)
    verdicts = _verdicts(before, bool(resolved), resolution, scale)
    status["conditions"] = conditions.merged(kinds.REVISION, before, verdicts, now)
    after = route_labeler.labelled(before, inputs.routes, inputs.configuration, now)
    after = objects.changed(after, new_status=status)
    actions += objects.write(kinds.REVISION.id, before, after)
    actions += _events(before, after)
    return ReconcileResult(actions, requeue_after)


def removed(namespace: str, name: str, resolution: Resolution | None) -> ReconcileResult:
    """Clean up after a deleted Revision."""
    return ReconcileResult([Forget(builds.RESOLUTIONS, f"{namespace}/{name}")] if resolution else [])


def _container_statuses(revision: Json, resolution: Resolution | None) -> Json:
    """`containerStatuses` and `initContainerStatuses`: kept once they are set, else made from the resolution."""
    old = objects.status(revision)
    if old.get("containerStatuses"):
        return {name: old[name] for name in ("containerStatuses", "initContainerStatuses") if name in old}
    if resolution is None or resolution.error:
        return {}
    digests = {image.container: image.digest for image in resolution.images}
    spec = revision["spec"]
    result: Json = {"containerStatuses": _digests(spec["containers"], digests)}
    if spec.get("initContainers"):
        result["initContainerStatuses"] = _digests(spec["initContainers"], digests)
    return result


def _digests(containers: Sequence[Json], digests: Mapping[str, str]) -> list[Json]:
    return [
        {"name": container["name"], "imageDigest": digests[container["name"]]}
        for container in containers
        if container["name"] in digests
    ]


def _ask(
    inputs: RevisionInputs, resolution: Resolution | None, resolved: bool, now: float
) -> tuple[list[Action], float | None]:
    """Request the digests if they were not requested yet, did not arrive in time, or failed and are due again."""
    if resolved:
        return [], None
    meta = inputs.revision["metadata"]
    if resolution is None:
        wait = LOST_SECONDS
        due = 0.0 if not inputs.asked else inputs.asked + wait
    else:
        created = objects.epoch(meta["creationTimestamp"])
        last = max(inputs.asked, created)
        wait = min(max(last - created, REPEAT_SECONDS[0]), REPEAT_SECONDS[1])
        due = last + wait
    if due > now:
        return [], due - now
    return [ResolveImages(meta["namespace"], meta["name"], meta["uid"])], wait


def _verdicts(
    revision: Json, resolved: bool, resolution: Resolution | None, scale: ScaleStatus | None
) -> dict[str, Verdict]:
    active = _active(scale, resolved)
    if (scale and scale.initial_reached) or _was_ready(revision):
        # A Revision that was ready stays ready; Active reports later starts of instances.
        return {ACTIVE: active, CONTAINER_HEALTHY: YES, RESOURCES_AVAILABLE: YES}
    if not resolved:
        looking = Verdict(UNKNOWN, "ResolvingDigests", "The digests of the images are being resolved.")
        healthy = looking
        if resolution is not None and resolution.error:
            healthy = Verdict(FALSE, "ContainerMissing", resolution.error)
        return {ACTIVE: active, CONTAINER_HEALTHY: healthy, RESOURCES_AVAILABLE: looking}
    deploying = Verdict(UNKNOWN, "Deploying")
    result = {ACTIVE: active, CONTAINER_HEALTHY: deploying, RESOURCES_AVAILABLE: deploying}
    if scale and scale.failure:
        failure = scale.failure
        result[failure.condition] = Verdict(FALSE if failure.final else UNKNOWN, failure.reason, failure.message)
    return result


def _active(scale: ScaleStatus | None, resolved: bool) -> Verdict:
    if scale is None:
        return Verdict(UNKNOWN, "Deploying" if resolved else "ResolvingDigests")
    if scale.active == TRUE and scale.initial_reached and scale.failure:
        # It serves requests, but its containers crash repeatedly.
        return Verdict(UNKNOWN, scale.failure.reason, scale.failure.message)
    if scale.active == TRUE:
        return Verdict(TRUE)
    reason, message = scale.active_reason, scale.active_message
    if scale.initial_reached and scale.failure and scale.failure.final:
        reason, message = scale.failure.reason, scale.failure.message
    return Verdict(scale.active, reason, message)


def _was_ready(revision: Json) -> bool:
    return objects.is_ready(revision)


def _events(before: Json, after: Json) -> list[Action]:
    was, now_is = objects.condition_status(before), objects.condition_status(after)
    if now_is == TRUE and was != TRUE:
        return [Emit(before, "Normal", "RevisionReady", "Revision becomes ready upon all resources being ready")]
    if now_is == FALSE and was != FALSE:
        condition = objects.condition(after) or {}
        return [Emit(before, "Warning", condition.get("reason", "Failed"), condition.get("message", ""))]
    return []
