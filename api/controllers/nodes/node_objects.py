"""The Node object of a machine. Pure.

Source of labels, conditions, reasons and messages: Kubernetes, `pkg/kubelet/nodestatus/setters.go` and
`pkg/controller/nodelifecycle/node_lifecycle_controller.go`.
"""

from knoll.messages.nodes import Node
from knoll.values import kinds
from knoll.values.json import Json
from knoll.values.node import CONTROL_PLANE, ROLE_LABEL
from knoll.values.timestamps import timestamp

HOST_NAME, OPERATING_SYSTEM = "kubernetes.io/hostname", "kubernetes.io/os"


def node(entry: Node | None, before: Json | None, now: float) -> Json | None:
    """Return the Node object of a machine; None without an entry and an object.

    Args:
        entry: what the machine reports; None while it does not report.
        before: the current object, whose spec and metadata are kept.
        now: epoch seconds, for conditions that change.
    """
    if entry is None and before is None:
        return None
    body = before or _new(entry) if entry is not None else before
    assert body is not None
    status = dict(body.get("status") or {})
    if entry is not None:
        status |= _reported(entry)
        body = _with_role(body, entry)
    return {**body, "status": {**status, "conditions": [_ready(entry is not None, status, now)]}}


def _with_role(body: Json, entry: Node) -> Json:
    meta, labels = body["metadata"], body["metadata"].get("labels") or {}
    roles = {name: value for name, value in entry.labels.items() if name.startswith(ROLE_LABEL)}
    kept = {name: value for name, value in labels.items() if name != CONTROL_PLANE}
    changed = {**kept, **roles}
    return body if changed == labels else {**body, "metadata": {**meta, "labels": changed}}


def is_ready(body: Json) -> bool:
    """Whether the machine reports that it is ready."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _new(entry: Node) -> Json:
    labels = {HOST_NAME: entry.name, OPERATING_SYSTEM: "linux", **entry.labels}
    spec: Json = {"providerID": f"docker://{entry.engine_id}"} if entry.engine_id else {}
    return {
        "apiVersion": kinds.NODE.api_version,
        "kind": kinds.NODE.kind,
        "metadata": {"name": entry.name, "labels": labels},
        "spec": spec,
    }


def _reported(entry: Node) -> Json:
    resources = {"cpu": _cores(entry.cores), "memory": f"{entry.memory_bytes // 1024}Ki"}
    addresses = [{"type": "InternalIP", "address": entry.address}] if entry.address else []
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [*addresses, {"type": "Hostname", "address": entry.name}],
        "nodeInfo": {"kubeletVersion": entry.version, "operatingSystem": "linux"},
    }


def _cores(cores: float) -> str:
    return str(int(cores)) if cores == int(cores) else f"{round(cores * 1000)}m"


def _ready(reports: bool, status: Json, now: float) -> Json:
    condition = (
        {"status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
        if reports
        else {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
    )
    before: Json = next((each for each in status.get("conditions") or () if each["type"] == "Ready"), {})
    since = before.get("lastTransitionTime") if before.get("status") == condition["status"] else None
    # Heartbeats are not written: each would be a write that changes nothing else.
    since = since or timestamp(now)
    return {"type": "Ready", **condition, "lastHeartbeatTime": since, "lastTransitionTime": since}
