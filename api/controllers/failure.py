"""What an object's status says when its reconciler could not do its work. Pure."""

from api.controllers import objects
from knoll.store import Json


def unobserved(body: Json, now: float) -> Json | None:
    """The object saying that its newest generation was seen and nothing came of it; None when that need not be said.

    Source: Knative's reconcilers set `NewObservedGenFailure` before they try, and it stays when they fail.
    """
    if objects.observed(body) or objects.deleting(body):
        return None
    ready = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NewObservedGenFailure",
        "message": "The newest generation was seen but could not be acted upon yet; it is tried again.",
        "lastTransitionTime": objects.timestamp(now),
    }
    old = objects.status(body)
    others = [found for found in old.get("conditions") or () if found["type"] != "Ready"]
    status = {
        **old,
        "observedGeneration": objects.generation(body),
        "conditions": sorted([*others, ready], key=lambda found: str(found["type"])),
    }
    return objects.changed(body, new_status=status)
