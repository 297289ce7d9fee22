"""The status of an object whose reconciliation failed. Pure."""

from api.controllers.reconciler import conditions, objects
from knoll.values.json import Json
from knoll.values.kinds import Kind


def unobserved(kind: Kind, body: Json, now: float, *, is_new: bool = False) -> Json | None:
    """Return the object with a status that shows its newest generation as failed; None if the status is up to date.

    Args: is_new: the status is the one that the object was created with, before its first reconciliation ended.

    Source: Knative's reconcilers set `NewObservedGenFailure` before they start; it remains if they fail.
    """
    if (objects.observed(body) and not is_new) or objects.deleting(body):
        return None
    status = {
        **objects.status(body),
        "observedGeneration": objects.generation(body),
        "conditions": conditions.unobserved(kind, body, now),
    }
    return objects.changed(body, new_status=status)
