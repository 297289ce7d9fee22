"""A Build seen as a Pod of its name, so that `kubectl logs BUILD` works: kubectl reads logs of Pods alone.

Found by its name where no Pod has that name; in no list, because it is no instance.
"""

from knoll.store.protocol import Store
from knoll.values.errors import NotFoundError
from knoll.values.json import Json
from knoll.values.kinds import BUILD_KIND, POD

CONTAINER = "build"
_PHASES = {"": "Pending", "Queued": "Pending"}
"""Others are called the same."""


async def pod_or_build(store: Store, namespace: str, name: str) -> Json:
    """The Pod of a name, else the Build. Raises: NotFoundError, about the Pod."""
    try:
        return await store.get(POD.id, namespace, name)
    except NotFoundError as error:
        try:
            return await store.get(BUILD_KIND.id, namespace, name)
        except NotFoundError:
            raise error from None


def pod_of(build: Json) -> Json:
    """What kubectl looks at before it asks for the log. Pure."""
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
