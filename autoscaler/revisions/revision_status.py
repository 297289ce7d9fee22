"""The scale status of one Revision, as the API reads it for conditions and Events."""

from typing import Literal

from autoscaler.revisions.progress import TIMED_OUT
from autoscaler.revisions.revision_scaler import RevisionScaler
from knoll.messages.scale import ScaleStatus, UsageStatus


def scale_status(scaler: RevisionScaler) -> ScaleStatus:
    """Return what is published of a Revision's scale."""
    progress, ready = scaler.progress, scaler.ready_count()
    failure = None
    if progress.gave_up:
        failure = progress.failure
    elif not progress.initial_reached or not scaler.serves_steadily():
        failure = scaler.first_failure()
    active, reason, message = _active(scaler, ready)
    return ScaleStatus(
        uid=scaler.uid,
        desired=0 if scaler.deleted else scaler.desired,
        actual=ready,
        initial_reached=progress.initial_reached,
        active=active,
        active_reason=reason,
        active_message=message,
        failure=failure,
        deploying_since=0.0 if progress.initial_reached else progress.since,
        rollback=scaler.comparison.worse,
        changes=scaler.changes,
        by_load=_by_load(scaler),
        usage=_usage(scaler),
    )


def _active(scaler: RevisionScaler, ready: int) -> tuple[Literal["True", "False", "Unknown"], str, str]:
    progress = scaler.progress
    if ready and (progress.initial_reached or ready >= scaler.spec.initial_scale):
        return "True", "", ""
    if progress.gave_up:
        return "False", TIMED_OUT, "The target could not be activated."
    if not progress.initial_reached:
        return "Unknown", "Deploying", ""
    if scaler.desired:
        return "Unknown", "Queued", "Requests to the target are being buffered as resources are provisioned."
    return "False", "NoTraffic", "The target is not receiving traffic."


def _by_load(scaler: RevisionScaler) -> int:
    if scaler.spec.by_resources:
        return scaler.desired
    return scaler.decision.by_load if scaler.decision and scaler.desired else 0


def _usage(scaler: RevisionScaler) -> UsageStatus | None:
    spec, decision = scaler.spec, scaler.resource_scale.decision
    if not spec.by_resources:
        return None
    average, problem = (decision.average, decision.problem) if decision else (None, "")
    return UsageStatus(
        spec.metric, spec.target, None if average is None else round(average), problem,
        max(1, spec.min_scale), spec.max_scale,
    )  # fmt: skip
