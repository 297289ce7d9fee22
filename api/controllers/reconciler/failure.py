"""The status of an object whose reconciliation failed. Pure."""

from api.controllers.reconciler import conditions, objects
from knoll.values.json import Json
from knoll.values.kinds import Kind


def unobserved(kind: Kind, body: Json, now: float) -> Json | None:
    """Return the object with a status that shows its newest generation as failed; None if the status is up to date.

    Source: Knative's reconcilers set `NewObservedGenFailure` before they start; it remains if they fail.
    """
    if objects.observed(body) or objects.deleting(body):
        return None
    status = {
        **objects.status(body),
        "observedGeneration": objects.generation(body),
        "conditions": conditions.unobserved(kind, body, now),
    }
    return objects.changed(body, new_status=status)
