"""Shows a Build as a Pod of its name, so that `kubectl logs BUILD` works: kubectl only reads logs of Pods.

Such a Pod can be read by name if no real Pod has that name. It is in no list, because it is not an instance.
"""

from knoll.store.protocol import Store
from knoll.values.errors import NotFoundError
from knoll.values.json import Json
from knoll.values.kinds import BUILD_KIND, POD

CONTAINER = "build"
_PHASES = {"": "Pending", "Queued": "Pending"}
"""Phases of a Build that differ from the Pod's."""


async def pod_or_build(store: Store, namespace: str, name: str) -> Json:
    """Return the Pod with a name, else the Build. Raises: NotFoundError, about the Pod."""
    try:
        return await store.get(POD.id, namespace, name)
    except NotFoundError as error:
        try:
            return await store.get(BUILD_KIND.id, namespace, name)
        except NotFoundError:
            raise error from None


def pod_of(build: Json) -> Json:
    """Return a Build as a Pod, with the fields that kubectl reads before it requests the log."""
    meta, status = build["metadata"], build.get("status") or {}
    phase = status.get("phase", "")
    times = {"startedAt": status.get("startTime"), "finishedAt": status.get("completionTime")}
    state: Json = {"waiting": {"reason": "Queued"}}
    if phase == "Running":
        state = {"running": {"startedAt": times["startedAt"]}}
    elif phase in ("Succeeded", "Failed"):
        code = 0 if phase == "Succeeded" else 1
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", **times}}
    container = {"name": CONTAINER, "image": build["spec"].get("tag", "")}
    kept = ("name", "namespace", "uid", "creationTimestamp", "resourceVersion")
    return {
        "apiVersion": POD.api_version,
        "kind": POD.kind,
        "metadata": {
            **{key: meta[key] for key in kept if key in meta},
            "ownerReferences": [
                {
                    "apiVersion": BUILD_KIND.api_version, "kind": BUILD_KIND.kind, "name": meta["name"],
                    "uid": meta.get("uid", ""), "controller": True,
                }
            ],
        },
        "spec": {"containers": [container], "restartPolicy": "Never"},
        "status": {
            "phase": _PHASES.get(phase, phase),
            "containerStatuses": [
                {**container, "state": state, "ready": False, "restartCount": 0, "started": phase == "Running"}
            ],
        },
    }  # fmt: skip
