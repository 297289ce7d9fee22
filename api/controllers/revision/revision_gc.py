"""Garbage collection of Revisions: which old ones of a Configuration without traffic are deleted. Pure."""

from collections.abc import Sequence

from api.controllers.reconciler import objects
from knoll.config.gc import GCConfig
from knoll.values import labels as well_known
from knoll.values.json import Json


def superfluous(
    configuration: Json, revisions: Sequence[Json], config: GCConfig, now: float
) -> tuple[list[Json], float | None]:
    """Return which Revisions to delete.

    Args:
        configuration: with its newest status.
        revisions: those it owns.
        now: epoch seconds.

    Returns:
        The Revisions, and the seconds until another one may be due; None if only a change can make one due.

    Source: Knative Serving, pkg/reconciler/gc, `collect`.
    """
    idle = sorted((revision for revision in revisions if not _is_kept(revision, configuration)), key=_last_active)
    spare = len(idle) - config.min_non_active_revisions
    if spare <= 0:
        return [], None
    due = {revision["metadata"]["name"]: _stale_at(revision, config) for revision in idle}
    stale = [revision for revision in idle if _at(due, revision) is not None and (_at(due, revision) or 0.0) <= now][
        :spare
    ]
    gone = {revision["metadata"]["name"] for revision in stale}
    left = [revision for revision in idle if revision["metadata"]["name"] not in gone]
    most = config.max_non_active_revisions
    extra = left[: len(left) - most] if most is not None and len(left) > most else []
    left = left[len(extra) :]
    later = [at for revision in left if (at := _at(due, revision)) is not None and at > now]
    wait = min(later) - now if later and len(left) > config.min_non_active_revisions else None
    return [*stale, *extra], wait


def _is_kept(revision: Json, configuration: Json) -> bool:
    status = objects.status(configuration)
    name = revision["metadata"]["name"]
    return (
        name in (status.get("latestReadyRevisionName"), status.get("latestCreatedRevisionName"))
        or objects.annotations(revision).get(well_known.REVISION_PRESERVED, "").lower() == "true"
        or objects.labels(revision).get(well_known.ROUTING_STATE) != well_known.RESERVE
        or objects.deleting(revision)
    )


def _last_active(revision: Json) -> tuple[float, str]:
    meta = revision["metadata"]
    stamp = objects.annotations(revision).get(well_known.ROUTING_STATE_MODIFIED) or meta["creationTimestamp"]
    return objects.epoch(stamp), meta["name"]


def _stale_at(revision: Json, config: GCConfig) -> float | None:
    """Epoch seconds at which both ages are reached; None if age-based retention is off."""
    since_create, since_active = config.retain_since_create_seconds, config.retain_since_last_active_seconds
    ends = []
    if since_create is not None:
        ends.append(objects.epoch(revision["metadata"]["creationTimestamp"]) + since_create)
    if since_active is not None:
        ends.append(_last_active(revision)[0] + since_active)
    return max(ends) if ends else None


def _at(due: dict[str, float | None], revision: Json) -> float | None:
    return due[revision["metadata"]["name"]]
