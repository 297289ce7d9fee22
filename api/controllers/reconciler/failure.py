"""What an object's status says when its reconciler could not do its work. Pure."""

from api.controllers.reconciler import conditions, objects
from knoll.values.json import Json
from knoll.values.kinds import Kind


def unobserved(kind: Kind, body: Json, now: float) -> Json | None:
    """The object saying that its newest generation was seen and nothing came of it; None when that need not be said.

    Source: Knative's reconcilers set `NewObservedGenFailure` before they try, and it stays when they fail.
    """
    if objects.observed(body) or objects.deleting(body):
        return None
    status = {
        **objects.status(body),
        "observedGeneration": objects.generation(body),
        "conditions": conditions.unobserved(kind, body, now),
    }
    return objects.changed(body, new_status=status)
