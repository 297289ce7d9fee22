"""The Pod that stands for an instance. Pure.

Source: Knative's names and labels of a Revision's Pods (pkg/reconciler/revision/resources), Kubernetes' PodStatus.
"""

from collections.abc import Sequence

from api.controllers.reconciler import objects
from knoll.messages.instances import FINALIZER, ContainerRow, InstanceRow
from knoll.resources.admission.admit import timestamp
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.node import NODE

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
UNSCHEDULABLE = "Unschedulable"
RESTING = {"paused": "Paused", "stopped": "Stopped"}
"""Why the Pod of an instance that rests is not ready."""
_NOT_INHERITED = (
    well_known.ROUTING_STATE, well_known.ROUTES, well_known.ROUTING_STATE_MODIFIED, well_known.LAST_APPLIED,
    well_known.REVISION_PRESERVED, well_known.CREATOR,
)  # fmt: skip

ConditionFact = tuple[str, bool | None, str]
"""A condition: type, whether it holds (None: not known), and the reason."""


def pod(revision: Json, row: InstanceRow, before: Json | None, now: float) -> Json:
    """The Pod as it should be.

    Args:
        before: as it is; what others did to its metadata stays.
        now: epoch seconds, for conditions that change.
    """
    meta: Json = dict(before["metadata"]) if before else _metadata(revision, row)
    meta |= {"labels": labels(revision), "annotations": _annotations(revision, row)}
    status = before.get("status") if before else None
    return {
        "apiVersion": kinds.POD.api_version,
        "kind": kinds.POD.kind,
        "metadata": meta,
        "spec": before["spec"] if before else pod_spec(revision, row),
        "status": _status(row, status or {}, now),
    }


def labels(revision: Json) -> dict[str, str]:
    """Labels of everything that a Revision runs."""
    meta = revision["metadata"]
    inherited = {key: value for key, value in objects.labels(revision).items() if key not in _NOT_INHERITED}
    ours = {well_known.REVISION: meta["name"], well_known.REVISION_UID: meta["uid"]}
    return {well_known.APP: meta["name"], **inherited, **ours}


def serving_container(revision: Json) -> Json:
    """The container that takes the requests: the only one, or the one with a port."""
    containers: list[Json] = revision["spec"]["containers"]
    return next((container for container in containers if container.get("ports")), containers[0])


def pod_spec(revision: Json, row: InstanceRow | None = None) -> Json:
    """What an instance consists of, in a Pod's words."""
    spec = revision["spec"]
    images = {container.name: container.image for container in row.containers} if row else {}
    shown: Json = {
        "containers": [
            {**container, "image": images.get(container["name"], container["image"])}
            for container in spec["containers"]
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": spec.get("timeoutSeconds") or 300,
    }
    for field in ("initContainers", "volumes", "serviceAccountName", "imagePullSecrets", "securityContext"):
        if spec.get(field):
            shown[field] = spec[field]
    if row:
        shown["nodeName"] = NODE
    return shown


def _metadata(revision: Json, row: InstanceRow) -> Json:
    owner = objects.owner_reference(kinds.REVISION, revision)
    return {
        "name": row.name,
        "namespace": revision["metadata"]["namespace"],
        # A Revision may go before its last request has ended.
        "ownerReferences": [{**owner, "blockOwnerDeletion": False}],
        "finalizers": [FINALIZER],
    }


def _annotations(revision: Json, row: InstanceRow) -> dict[str, str]:
    inherited = {key: value for key, value in objects.annotations(revision).items() if key not in _NOT_INHERITED}
    kept = {well_known.KEPT_MEMORY: str(row.memory_bytes)} if row.stage == "paused" else {}
    return {**inherited, DEFAULT_CONTAINER: serving_container(revision)["name"], **kept}


def _status(row: InstanceRow, before: Json, now: float) -> Json:
    ready = row.stage in ("ready", "draining") and all(container.ready for container in row.containers)
    started = row.stage == "stopped" or any(
        container.running or container.restarts or container.last for container in row.containers
    )
    unready = "" if ready else RESTING.get(row.stage, "ContainersNotReady")
    waits = next((container for container in row.containers if container.reason == UNSCHEDULABLE), None)
    facts: Sequence[ConditionFact] = (
        ("PodScheduled", bool(row.address), "" if row.address else UNSCHEDULABLE if waits else "SchedulingPending"),
        ("Initialized", started, "" if started else "ContainersNotInitialized"),
        ("ContainersReady", ready, unready),
        ("Ready", ready, unready),
    )
    status: Json = {
        "phase": "Running" if started else "Pending",
        "startTime": timestamp(row.created),
        "conditions": conditions(facts, before, now),
        "containerStatuses": [_container(container, row) for container in row.containers],
    }
    if row.address:
        status |= {"podIP": row.address, "podIPs": [{"ip": row.address}]}
    return status


def _container(container: ContainerRow, row: InstanceRow) -> Json:
    last: Json = {}
    if container.last:
        end = container.last
        last = {"terminated": {"exitCode": end.exit_code, "reason": end.reason, "finishedAt": timestamp(end.at)}}
    if container.running:
        state: Json = {"running": {"startedAt": timestamp(container.started or row.created)}}
    elif container.last and container.reason == container.last.reason:
        state = last
    else:
        state = {
            "waiting": {"reason": container.reason, **({"message": container.message} if container.message else {})}
        }
    return {
        "name": container.name,
        "image": container.image,
        "imageID": container.image,
        "ready": container.ready,
        "started": container.running,
        "restartCount": container.restarts,
        "state": state,
        "lastState": last,
    }


def waits_for_room(pod: Json) -> bool:
    """Whether the machine has not what a Pod requests."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(
        condition["type"] == "PodScheduled" and condition.get("reason") == UNSCHEDULABLE for condition in conditions
    )


def conditions(facts: Sequence[ConditionFact], before: Json, now: float) -> list[Json]:
    """Conditions as they view in a status; those that hold as before keep their time."""
    old = {condition["type"]: condition for condition in before.get("conditions") or ()}
    result = []
    for type_, holds, reason in facts:
        status = "Unknown" if holds is None else str(holds)
        was = old.get(type_, {})
        since = was["lastTransitionTime"] if was.get("status") == status else timestamp(now)
        result.append(
            {"type": type_, "status": status, "lastTransitionTime": since, **({"reason": reason} if reason else {})}
        )
    return result
