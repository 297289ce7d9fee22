"""The Pod that represents an instance. Pure.

Source: Knative's names and labels of a Revision's Pods (pkg/reconciler/revision/resources), Kubernetes' PodStatus.
"""

from collections.abc import Sequence

from api.controllers.reconciler import objects
from knoll.messages.instances import FINALIZER, ContainerRow, InstanceRow
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.names import QUEUE_PROXY
from knoll.values.node import NODE
from knoll.values.timestamps import timestamp

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
UNSCHEDULABLE = "Unschedulable"
QUEUE_PROXY_IMAGE = "knoll"
RESTING = {"paused": "Paused", "stopped": "Stopped"}
"""Idle states of an instance, and the reasons why its Pod is not ready."""
_NOT_INHERITED = (
    well_known.ROUTING_STATE, well_known.ROUTES, well_known.ROUTING_STATE_MODIFIED, well_known.LAST_APPLIED,
    well_known.REVISION_PRESERVED, well_known.CREATOR,
)  # fmt: skip

ConditionFact = tuple[str, bool | None, str]
"""A condition: type, whether it holds (None: unknown), and the reason."""


def pod(revision: Json, row: InstanceRow, before: Json | None, now: float) -> Json:
    """Return the Pod of an instance.

    Args:
        before: the current Pod; changes of others to its metadata are kept.
        now: epoch seconds, for conditions that change.
    """
    meta: Json = dict(before["metadata"]) if before else _metadata(revision, row)
    meta |= {"labels": labels(revision), "annotations": _annotations(revision, row)}
    status = before.get("status") if before else None
    spec = before["spec"] if before else _with_queue_proxy(pod_spec(revision, row))
    if row.node and spec.get("nodeName") != row.node:
        spec = {**spec, "nodeName": row.node}
    return {
        "apiVersion": kinds.POD.api_version,
        "kind": kinds.POD.kind,
        "metadata": meta,
        "spec": spec,
        "status": _status(row, spec, status or {}, now),
    }


def read_of_revision(revision: Json) -> object:
    """Return the part of a Revision on which its Pods and other objects depend: not its status."""
    meta = revision["metadata"]
    return [meta.get(name) for name in ("uid", "labels", "annotations", "deletionTimestamp")], revision["spec"]


def labels(revision: Json) -> dict[str, str]:
    """Labels of all objects of a Revision."""
    meta = revision["metadata"]
    inherited = {key: value for key, value in objects.labels(revision).items() if key not in _NOT_INHERITED}
    ours = {well_known.REVISION: meta["name"], well_known.REVISION_UID: meta["uid"]}
    return {well_known.APP: meta["name"], **inherited, **ours}


def serving_container(revision: Json) -> Json:
    """The container that receives the requests: the one with a port, else the first."""
    containers: list[Json] = revision["spec"]["containers"]
    return next((container for container in containers if container.get("ports")), containers[0])


def pod_spec(revision: Json, row: InstanceRow | None = None) -> Json:
    """The PodSpec of an instance."""
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
        shown["nodeName"] = row.node or NODE
    return shown


def _with_queue_proxy(spec: Json) -> Json:
    """The PodSpec with the container that Knative adds: clients read its log, and kubectl requires it to be listed.

    It uses nothing of its own, so it has no resources.
    """
    return {**spec, "containers": [*spec["containers"], {"name": QUEUE_PROXY, "image": QUEUE_PROXY_IMAGE}]}


def _metadata(revision: Json, row: InstanceRow) -> Json:
    owner = objects.owner_reference(kinds.REVISION, revision)
    return {
        "name": row.name,
        "namespace": revision["metadata"]["namespace"],
        # A Revision may be deleted before its last request has ended.
        "ownerReferences": [{**owner, "blockOwnerDeletion": False}],
        "finalizers": [FINALIZER],
    }


def _annotations(revision: Json, row: InstanceRow) -> dict[str, str]:
    inherited = {key: value for key, value in objects.annotations(revision).items() if key not in _NOT_INHERITED}
    kept = {well_known.KEPT_MEMORY: str(row.memory_bytes)} if row.stage == "paused" else {}
    return {**inherited, DEFAULT_CONTAINER: serving_container(revision)["name"], **kept}


def _status(row: InstanceRow, spec: Json, before: Json, now: float) -> Json:
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
    statuses = [_container(container, row) for container in row.containers]
    if any(container["name"] == QUEUE_PROXY for container in spec["containers"]):  # one of an earlier release has none
        statuses.append(_queue_proxy(row, started=started, ready=ready))
    status: Json = {
        "phase": "Running" if started else "Pending",
        "startTime": timestamp(row.created),
        "conditions": conditions(facts, before, now),
        "containerStatuses": statuses,
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


def _queue_proxy(row: InstanceRow, *, started: bool, ready: bool) -> Json:
    """The status of the queue-proxy container: the activators do its work, so it is ready with the instance."""
    running = {"running": {"startedAt": timestamp(row.created)}}
    return {
        "name": QUEUE_PROXY,
        "image": QUEUE_PROXY_IMAGE,
        "imageID": QUEUE_PROXY_IMAGE,
        "ready": ready,
        "started": started,
        "restartCount": 0,
        "state": running if started else {"waiting": {"reason": "ContainerCreating"}},
        "lastState": {},
    }


def is_unschedulable(pod: Json) -> bool:
    """Whether the node lacks the resources that a Pod requests."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(
        condition["type"] == "PodScheduled" and condition.get("reason") == UNSCHEDULABLE for condition in conditions
    )


def conditions(facts: Sequence[ConditionFact], before: Json, now: float) -> list[Json]:
    """Return the conditions of a status; unchanged ones keep their time."""
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
