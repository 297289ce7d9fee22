"""Functions that read and make JSON objects for the reconcilers. Pure; arguments are never mutated."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from api.controllers.reconciler.actions import Action, ObjectKey, Update, UpdateStatus
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.timestamps import timestamp


def epoch(stamp: str) -> float:
    """Epoch seconds of an RFC 3339 time."""
    return datetime.fromisoformat(stamp).timestamp()


def created(body: Json) -> float:
    """Epoch seconds at which an object was created; 0 if it has no creationTimestamp."""
    stamp = body["metadata"].get("creationTimestamp")
    return epoch(stamp) if stamp else 0.0


def key_of(resource: str, body: Json) -> ObjectKey:
    meta = body["metadata"]
    return (resource, meta.get("namespace", ""), meta["name"])


def path_of(body: Json) -> str:
    """`namespace/name`, as tables name objects."""
    return f"{body['metadata'].get('namespace', '')}/{body['metadata']['name']}"


def labels(body: Json) -> Mapping[str, str]:
    own_labels: Mapping[str, str] = body["metadata"].get("labels") or {}
    return own_labels


def annotations(body: Json) -> Mapping[str, str]:
    own_annotations: Mapping[str, str] = body["metadata"].get("annotations") or {}
    return own_annotations


def status(body: Json) -> Json:
    current: Json = body.get("status") or {}
    return current


def generation(body: Json) -> int:
    return int(body["metadata"].get("generation") or 0)


def observed(body: Json) -> bool:
    """Whether its controller has acted on the newest generation."""
    return int(status(body).get("observedGeneration") or 0) == generation(body)


def deleting(body: Json) -> bool:
    return bool(body["metadata"].get("deletionTimestamp"))


def condition(body: Json, type_: str = "Ready") -> Json | None:
    return next((candidate for candidate in status(body).get("conditions") or () if candidate["type"] == type_), None)


def condition_status(body: Json, type_: str = "Ready") -> str:
    """`True`, `False` or `Unknown`; `Unknown` if the condition is missing."""
    current = condition(body, type_)
    return str(current["status"]) if current else "Unknown"


def is_ready(body: Json) -> bool:
    return observed(body) and condition_status(body) == "True"


def controller_of(body: Json) -> Json | None:
    """The owner reference with `controller: true`."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def is_controlled_by(body: Json, owner: Json) -> bool:
    reference = controller_of(body)
    return reference is not None and reference.get("uid") == owner["metadata"]["uid"]


def is_leftover(body: Json, owner: Json) -> bool:
    """Whether an object belongs to a deleted owner of the same kind and name, and is about to be garbage-collected."""
    reference = controller_of(body)
    meta = owner["metadata"]
    return (
        reference is not None
        and reference.get("kind") == owner["kind"]
        and reference.get("name") == meta["name"]
        and reference.get("uid") != meta["uid"]
    )


def owner_reference(kind: kinds.Kind, owner: Json) -> Json:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def routes_named(body: Json) -> frozenset[str]:
    """Names in the annotation `serving.knative.dev/routes`."""
    return frozenset(filter(None, annotations(body).get(well_known.ROUTES, "").split(",")))


def routes_text(names: Iterable[str]) -> str:
    return ",".join(sorted(set(names)))


def make(kind: kinds.Kind, owner_kind: kinds.Kind, owner: Json, name: str, **parts: Any) -> Json:
    """A new child of `owner`, in its namespace.

    Args:
        parts: `labels`, `annotations`, `finalizers` (each omitted if empty) and `spec`.
    """
    meta: Json = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner_kind, owner)],
    }
    for part in ("labels", "annotations", "finalizers"):
        if parts.get(part):
            meta[part] = parts[part]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": parts["spec"]}


def changed(
    body: Json,
    *,
    new_labels: Mapping[str, str] | None = None,
    new_annotations: Mapping[str, str] | None = None,
    finalizers: list[str] | None = None,
    spec: Json | None = None,
    new_status: Json | None = None,
) -> Json:
    """The object with some parts replaced; None keeps a part, an empty value removes it."""
    result = {**body, "metadata": dict(body["metadata"])}
    for name, value in (("labels", new_labels), ("annotations", new_annotations), ("finalizers", finalizers)):
        if value:
            result["metadata"][name] = value if isinstance(value, list) else dict(value)
        elif value is not None:
            result["metadata"].pop(name, None)
    if spec is not None:
        result["spec"] = spec
    if new_status is not None:
        result["status"] = new_status
    return result


def write(resource: str, before: Json, after: Json) -> list[Action]:
    """The action that turns `before` into `after`; none if they are equal."""
    if before == after:
        return []
    if {**before, "status": None} == {**after, "status": None}:
        return [UpdateStatus(resource, before, after)]
    return [Update(resource, before, after)]


def with_identity(body: Json, now: float) -> Json:
    """A new object with a random uid, its creation time and generation 1. Args: now: epoch seconds."""
    identity = {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(now), "generation": 1}
    return {**body, "metadata": {**body["metadata"], **identity}}


def with_generation(before: Json, body: Json) -> Json:
    """The object with its generation incremented if its spec differs from that of `before`."""
    if before.get("spec") == body.get("spec"):
        return body
    return {**body, "metadata": {**body["metadata"], "generation": generation(before) + 1}}
