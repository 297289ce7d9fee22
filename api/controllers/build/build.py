"""The reconciler of a Build: enqueues it for the builder and copies the builder's progress into its status. Pure.

The phases of a Build and the transitions between them are those of `knoll.messages.builds`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from api.controllers.reconciler import conditions, objects
from api.controllers.reconciler.actions import Action, Delete, Emit, Enqueue, Forget, ReconcileResult
from api.controllers.reconciler.conditions import FALSE, TRUE, UNKNOWN, Verdict
from knoll.messages import builds as jobs
from knoll.messages.builds import BuildPhase, BuildProgress
from knoll.values import kinds
from knoll.values.image_reference import parse_image
from knoll.values.json import Json
from knoll.values.timestamps import timestamp

SUCCEEDED = "Succeeded"

QUEUE_SECONDS = 2.0
"""Interval at which the queue position of a queued Build is updated, in seconds."""

LOST_SECONDS = 60.0
"""Interval at which an unfinished Build is enqueued again, in seconds. The queue keeps it from running twice."""


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """A Build and its progress as the builder reports it."""

    build: Json
    progress: BuildProgress | None = None
    asked: float = 0.0
    """Epoch seconds at which this process enqueued it last; 0 if it has not."""
    position: int = 1
    """Position in the queue; 1 is next."""
    siblings: Sequence[Json] = ()
    """Builds of the same repository in its namespace; may include the Build itself."""
    most_finished: int | None = None
    """How many finished Builds of the repository are kept; None keeps all."""


def reconcile(inputs: BuildInputs, now: float) -> ReconcileResult:
    """Return the status of a Build, and whether to enqueue it."""
    before = inputs.build
    if objects.deleting(before):
        return ReconcileResult()
    meta = before["metadata"]
    progress = inputs.progress if inputs.progress and inputs.progress.uid == meta["uid"] else None
    if progress is None and is_over(before):
        return ReconcileResult()
    status: Json = {"observedGeneration": objects.generation(before), **_mirrored(progress, inputs.position)}
    status["logUrl"] = f"/apis/{kinds.BUILD_KIND.api_version}/namespaces/{meta['namespace']}/builds/{meta['name']}/log"
    status["conditions"] = conditions.merged(
        kinds.BUILD_KIND, before, {SUCCEEDED: _verdict(progress, inputs.position)}, now
    )
    after = objects.changed(before, new_status=status)
    actions: list[Action] = []
    requeue_after = None
    if not is_over(after):
        # A running Build is enqueued again as well: the queue restarts it if its worker has died.
        due = inputs.asked + LOST_SECONDS if inputs.asked else 0.0
        requeue_after = LOST_SECONDS if due <= now else due - now
        if due <= now:
            actions.append(Enqueue(meta["namespace"], meta["name"], meta["uid"]))
        if status["phase"] == BuildPhase.QUEUED:
            requeue_after = min(requeue_after, QUEUE_SECONDS)
    actions += objects.write(kinds.BUILD_KIND.id, before, after)
    if is_over(after) and not is_over(before):
        succeeded = objects.condition(after, SUCCEEDED) or {}
        type_ = "Normal" if succeeded["status"] == TRUE else "Warning"
        actions.append(Emit(before, type_, succeeded.get("reason") or "BuildSucceeded", succeeded.get("message", "")))
        actions += [
            Delete(kinds.BUILD_KIND.id, meta["namespace"], old["metadata"]["name"], old["metadata"]["uid"])
            for old in superfluous([*inputs.siblings, after], inputs.most_finished)
        ]
    return ReconcileResult(actions, requeue_after)


def removed(namespace: str, name: str, progress: BuildProgress | None) -> ReconcileResult:
    """Clean up after a deleted Build."""
    return ReconcileResult([Forget(jobs.BUILDS, f"{namespace}/{name}")] if progress else [])


def superfluous(builds: Sequence[Json], most: int | None) -> list[Json]:
    """Finished Builds that are older than the newest `most` of them. `builds` may contain a Build twice."""
    if most is None:
        return []
    over = {build["metadata"]["uid"]: build for build in builds if is_over(build)}
    newest = sorted(over.values(), key=_age, reverse=True)
    return [build for build in newest[most:] if not objects.deleting(build)]


def _age(build: Json) -> tuple[str, int]:
    meta = build["metadata"]
    return meta["creationTimestamp"], int(meta.get("resourceVersion", 0))


def repository(build: Json) -> str:
    """The name of a Build's image without the tag."""
    return parse_image(build["spec"]["tag"]).repository


def is_over(build: Json) -> bool:
    return objects.condition_status(build, SUCCEEDED) != UNKNOWN


def _mirrored(progress: BuildProgress | None, position: int) -> Json:
    if progress is None:
        return {"phase": BuildPhase.QUEUED.value, "queuePosition": position}
    fields: Json = {"phase": progress.phase.value}
    if progress.step and progress.phase is BuildPhase.RUNNING:
        fields["step"] = progress.step
    if progress.digest:
        fields["digest"] = progress.digest
    if progress.size:
        fields["size"] = progress.size
    if progress.started:
        fields["startTime"] = timestamp(progress.started)
    if progress.finished:
        fields["completionTime"] = timestamp(progress.finished)
    if progress.attempts:
        fields["attempts"] = progress.attempts
    return fields


def _verdict(progress: BuildProgress | None, position: int) -> Verdict:
    match progress.phase if progress else BuildPhase.QUEUED:
        case BuildPhase.SUCCEEDED:
            return Verdict(TRUE)
        case BuildPhase.FAILED:
            reason, message = (progress.reason, progress.message) if progress else ("", "")
            return Verdict(FALSE, reason or "BuildFailed", message or "The build failed.")
        case BuildPhase.RUNNING:
            return Verdict(UNKNOWN, "Running", "The image is being built.")
        case BuildPhase.QUEUED:
            queue = "" if position == 1 else f", position {position} in the queue"
            return Verdict(UNKNOWN, "Queued", f"The build is waiting for a free builder{queue}.")
