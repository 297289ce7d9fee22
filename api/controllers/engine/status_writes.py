"""Which writes of a status can be saved: by a creation that contains it, or by waiting for the next one. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Action, Emit, PutRoute, Update, UpdateStatus
from api.controllers.reconciler.conditions import INGRESS_READY, TRUE
from knoll.values import kinds
from knoll.values.json import Json

CREATED_WITH_STATUS = frozenset({kinds.CONFIGURATION.id, kinds.ROUTE.id, kinds.REVISION.id})
"""Kinds whose first reconciliation is part of their creation by the reconciler of their owner."""

_AWAITED = {
    kinds.SERVICE.id: (),
    kinds.CONFIGURATION.id: ("latestCreatedRevisionName", "latestReadyRevisionName"),
    kinds.REVISION.id: ("containerStatuses", "initContainerStatuses", "annotations"),
    kinds.ROUTE.id: (),
}
"""By kind, the parts of a status that other reconcilers or processes act on. Other kinds are always written at once."""


def with_first_status(body: Json, actions: Sequence[Action]) -> tuple[Json, list[Action]]:
    """Fold what the first reconciliation of a new object writes to it into the object.

    Args:
        body: the object as it was reconciled; not stored yet.
        actions: of its first reconciliation.

    Returns: the object to create, and the actions to carry out once it exists.
    """
    result, others = body, []
    for action in actions:
        if isinstance(action, Update | UpdateStatus) and action.before is body:
            result = action.body
        else:
            others.append(action)
    return result, others


def about_stored(actions: Sequence[Action], new: Json, stored: Json) -> list[Action]:
    """The actions with Events about `stored` instead of `new`, which has no version yet."""
    return [
        replace(action, about=stored) if isinstance(action, Emit) and action.about is new else action
        for action in actions
    ]


def can_wait(actions: Sequence[Action]) -> bool:
    """Whether the status that these actions write may wait for the next reconciliation of the object.

    That is so while the object is as ready as before and nothing acts on what changes: most such statuses are
    intermediate, and the next one follows within milliseconds. A Route's entry may be put before its status only while
    the status does not say that the entry is acknowledged (see `route.reconcile`), and a rollout or a trial continues
    from its status.
    """
    writes = [action for action in actions if isinstance(action, UpdateStatus)]
    if len(writes) != 1 or not all(isinstance(action, UpdateStatus | PutRoute) for action in actions):
        return False
    resource, before, after = writes[0].resource, writes[0].before, writes[0].body
    awaited = _AWAITED.get(resource)
    if awaited is None or objects.condition(before) is None:
        return False
    was, becomes = objects.status(before), objects.status(after)
    return (
        was.get("observedGeneration") == becomes.get("observedGeneration")
        and objects.condition_status(before) == objects.condition_status(after)
        and all(was.get(name) == becomes.get(name) for name in awaited)
        and not (resource == kinds.ROUTE.id and _is_followed(before, after))
    )


def _is_followed(before: Json, after: Json) -> bool:
    """Whether the next step of a Route depends on the status that is written."""
    return (
        objects.condition_status(before, INGRESS_READY) == TRUE
        or "annotations" in objects.status(before)
        or "annotations" in objects.status(after)
    )
