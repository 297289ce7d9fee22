"""The tables that `kubectl get` prints. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from knoll.values.json import Json
from knoll.values.kinds import Kind

Cell = Callable[[Json, float], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One printed column; priority 1 means that only `-o wide` shows it."""

    name: str
    cell: Cell
    type: str = "string"
    priority: int = 0
    format: str = ""


def _at(*path: str) -> Cell:
    def cell(body: Json, now: float) -> Any:
        value: Any = body
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return "" if value is None else value

    return cell


def _condition(kind: str, field: str) -> Cell:
    def cell(body: Json, now: float) -> Any:
        for condition in body.get("status", {}).get("conditions") or ():
            if condition.get("type") == kind:
                return condition.get(field) or ""
        return ""

    return cell


def _label(key: str) -> Cell:
    return lambda body, now: (body["metadata"].get("labels") or {}).get(key, "")


def _age(body: Json, now: float) -> str:
    return age(body["metadata"].get("creationTimestamp"), now)


def age(stamp: Any, now: float) -> str:
    """Return the time since `stamp` in kubectl's short form. Source: `k8s.io/apimachinery/pkg/util/duration`."""
    if not isinstance(stamp, str) or not stamp:
        return "<unknown>"
    try:
        seconds = int(now - datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return "<unknown>"
    if seconds < 0:
        return "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = divmod(days, 365)
    return f"{years}y{rest}d" if years < 8 and rest else f"{years}y"


def _ready_containers(body: Json, now: float) -> str:
    statuses = body.get("status", {}).get("containerStatuses") or ()
    total = len(body.get("spec", {}).get("containers") or statuses)
    return f"{sum(1 for status in statuses if status.get('ready'))}/{total}"


def _restarts(body: Json, now: float) -> str:
    return str(sum(s.get("restartCount", 0) for s in body.get("status", {}).get("containerStatuses") or ()))


def _pod_phase(body: Json, now: float) -> str:
    if body["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for status in body.get("status", {}).get("containerStatuses") or ():
        state = status.get("state") or {}
        for phase in ("waiting", "terminated"):
            if state.get(phase, {}).get("reason"):
                return str(state[phase]["reason"])
    return str(body.get("status", {}).get("phase") or "Unknown")


def _external(body: Json, now: float) -> str:
    ingress = body.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    addresses = [entry.get("ip") or entry.get("hostname") or "" for entry in ingress]
    return ",".join(filter(None, addresses)) or body.get("spec", {}).get("externalName") or "<none>"


def _ports(body: Json, now: float) -> str:
    ports = body.get("spec", {}).get("ports") or ()
    return ",".join(
        f"{port.get('port')}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in ports
    ) or "<none>"  # fmt: skip


def _object(body: Json, now: float) -> str:
    involved = body.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _seen(body: Json, now: float) -> str:
    return age(body.get("lastTimestamp") or body.get("eventTime") or body["metadata"].get("creationTimestamp"), now)


def _count(field: str) -> Cell:
    return lambda body, now: len(body.get(field) or ())


def _config_data(body: Json, now: float) -> int:
    return len(body.get("data") or ()) + len(body.get("binaryData") or ())


def _endpoints(body: Json, now: float) -> str:
    addresses = [address for endpoint in body.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return ",".join(addresses[:3]) + (f" + {len(addresses) - 3} more..." if len(addresses) > 3 else "") or "<unset>"


def _slice_ports(body: Json, now: float) -> str:
    return ",".join(str(port.get("port")) for port in body.get("ports") or ()) or "<unset>"


def _replicas(body: Json, now: float) -> str:
    return f"{body.get('status', {}).get('readyReplicas', 0)}/{body.get('spec', {}).get('replicas', 0)}"


_ACCESS_MODES = {
    "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOnce": "RWO", "ReadWriteOncePod": "RWOP"
}  # fmt: skip


def _access_modes(body: Json, now: float) -> str:
    modes = body.get("status", {}).get("accessModes") or ()
    return ",".join(_ACCESS_MODES.get(mode, mode) for mode in modes)


def _quota(limits: bool) -> Cell:
    """Usage and hard limits of a quota: of the `limits.` resources, or of the others."""

    def cell(body: Json, now: float) -> str:
        status = body.get("status", {})
        hard, used = status.get("hard") or {}, status.get("used") or {}
        names = sorted(name for name in hard if name.startswith("limits.") == limits)
        return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)

    return cell


_NAME = Column("Name", lambda body, now: body["metadata"]["name"], format="name")
_AGE = Column("Age", _age)
_READY = Column("Ready", _condition("Ready", "status"))
_REASON = Column("Reason", _condition("Ready", "reason"))
_URL = Column("URL", _at("status", "url"))
_CREATED = Column("LatestCreated", _at("status", "latestCreatedRevisionName"))
_LATEST = Column("LatestReady", _at("status", "latestReadyRevisionName"))


def _scaled(body: Json, _: float) -> str:
    target = body.get("spec", {}).get("scaleTargetRef", {})
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _metric_targets(body: Json, _: float) -> str:
    """`cpu: 30%/50%`, as kubectl prints it."""
    measured = body.get("status", {}).get("currentMetrics", ())
    current = {metric["resource"]["name"]: metric["resource"]["current"] for metric in measured}

    def shown(amount: Json) -> str:
        percent = amount.get("averageUtilization")
        return f"{percent}%" if percent is not None else str(amount.get("averageValue", "<unknown>"))

    targets = [metric["resource"] for metric in body.get("spec", {}).get("metrics", ())]
    return ", ".join(
        f"{metric['name']}: {shown(current.get(metric['name'], {}))}/{shown(metric['target'])}" for metric in targets
    )


def _node_state(body: Json, _: float) -> str:
    ready: Json = next((each for each in body.get("status", {}).get("conditions") or () if each["type"] == "Ready"), {})
    states = ["Ready" if ready.get("status") == "True" else "NotReady" if ready else "Unknown"]
    return ",".join([*states, *(["SchedulingDisabled"] if body.get("spec", {}).get("unschedulable") else [])])


_ROLE = "node-role.kubernetes.io/"


def _node_roles(body: Json, _: float) -> str:
    labels = body["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE))) or "<none>"


def _node_address(kind: str) -> Cell:
    def cell(body: Json, _: float) -> str:
        listed = body.get("status", {}).get("addresses") or ()
        return next((each["address"] for each in listed if each["type"] == kind), "<none>")

    return cell


def _node_info(field: str) -> Cell:
    return lambda body, _: body.get("status", {}).get("nodeInfo", {}).get(field) or "<unknown>"


_COLUMNS: Mapping[str, Sequence[Column]] = {
    "services.serving.knative.dev": (_NAME, _URL, _CREATED, _LATEST, _READY, _REASON),
    "configurations.serving.knative.dev": (_NAME, _CREATED, _LATEST, _READY, _REASON),
    "routes.serving.knative.dev": (_NAME, _URL, _READY, _REASON),
    "domainmappings.serving.knative.dev": (_NAME, _URL, _READY, _REASON),
    "revisions.serving.knative.dev": (
        _NAME,
        Column("Config Name", _label("serving.knative.dev/configuration")),
        Column("Generation", _label("serving.knative.dev/configurationGeneration")),
        _READY,
        _REASON,
        Column("Actual Replicas", _at("status", "actualReplicas"), "integer"),
        Column("Desired Replicas", _at("status", "desiredReplicas"), "integer"),
    ),
    "builds.build.knoll.dev": (
        _NAME,
        Column("Tag", _at("spec", "tag")),
        Column("Phase", _at("status", "phase")),
        Column("Step", _at("status", "step")),
        Column("Digest", _at("status", "digest"), priority=1),
        _AGE,
    ),
    "nodes": (
        _NAME,
        Column("Status", _node_state),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _node_info("kubeletVersion")),
        Column("Internal-IP", _node_address("InternalIP"), priority=1),
        Column("External-IP", _node_address("ExternalIP"), priority=1),
        Column("OS-Image", _node_info("osImage"), priority=1),
        Column("Kernel-Version", _node_info("kernelVersion"), priority=1),
        Column("Container-Runtime", _node_info("containerRuntimeVersion"), priority=1),
    ),
    "namespaces": (_NAME, Column("Status", lambda body, now: body.get("status", {}).get("phase", "Active")), _AGE),
    "configmaps": (_NAME, Column("Data", _config_data, "integer"), _AGE),
    "secrets": (_NAME, Column("Type", _at("type")), Column("Data", _count("data"), "integer"), _AGE),
    "serviceaccounts": (_NAME, Column("Secrets", _count("secrets"), "integer"), _AGE),
    "events": (
        Column("Last Seen", _seen),
        Column("Type", _at("type")),
        Column("Reason", _at("reason")),
        Column("Object", _object),
        Column("Count", _at("count"), "integer", 1),
        Column("Message", lambda body, now: str(body.get("message", "")).strip()),
        Column("Name", _NAME.cell, priority=1, format="name"),
    ),
    "services": (
        _NAME,
        Column("Type", lambda body, now: body.get("spec", {}).get("type", "ClusterIP")),
        Column("Cluster-IP", lambda body, now: body.get("spec", {}).get("clusterIP") or "<none>"),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        _AGE,
    ),
    "persistentvolumeclaims": (
        _NAME,
        Column("Status", lambda body, now: body.get("status", {}).get("phase", "Pending")),
        Column("Volume", _at("spec", "volumeName")),
        Column("Capacity", _at("status", "capacity", "storage")),
        Column("Access Modes", _access_modes),
        Column("StorageClass", _at("spec", "storageClassName")),
        _AGE,
        Column("VolumeMode", _at("spec", "volumeMode"), priority=1),
    ),
    "resourcequotas": (_NAME, Column("Request", _quota(False)), Column("Limit", _quota(True)), _AGE),
    "pods": (
        _NAME,
        Column("Ready", _ready_containers),
        Column("Status", _pod_phase),
        Column("Restarts", _restarts),
        _AGE,
        Column("IP", lambda body, now: body.get("status", {}).get("podIP") or "<none>", priority=1),
        Column("Node", lambda body, now: body.get("spec", {}).get("nodeName") or "<none>", priority=1),
    ),
    "deployments.apps": (
        _NAME,
        Column("Ready", _replicas),
        Column("Up-to-date", lambda body, now: body.get("status", {}).get("updatedReplicas", 0), "integer"),
        Column("Available", lambda body, now: body.get("status", {}).get("availableReplicas", 0), "integer"),
        _AGE,
    ),
    "endpointslices.discovery.k8s.io": (
        _NAME, Column("AddressType", _at("addressType")), Column("Ports", _slice_ports),
        Column("Endpoints", _endpoints), _AGE
    ),
    "podautoscalers.autoscaling.internal.knative.dev": (
        _NAME,
        Column("DesiredScale", _at("status", "desiredScale"), "integer"),
        Column("ActualScale", _at("status", "actualScale"), "integer"),
        _READY,
        _REASON,
    ),
    "horizontalpodautoscalers.autoscaling": (
        _NAME,
        Column("Reference", _scaled),
        Column("Targets", _metric_targets),
        Column("MinPods", _at("spec", "minReplicas"), "integer"),
        Column("MaxPods", _at("spec", "maxReplicas"), "integer"),
        Column("Replicas", _at("status", "currentReplicas"), "integer"),
        _AGE,
    ),
    "serverlessservices.networking.internal.knative.dev": (
        _NAME,
        Column("Mode", _at("spec", "mode")),
        Column("Activators", _at("spec", "numActivators"), "integer"),
        Column("ServiceName", _at("status", "serviceName")),
        Column("PrivateServiceName", _at("status", "privateServiceName")),
        _READY,
        _REASON,
    ),
}  # fmt: skip
_DEFAULT = (_NAME, _AGE)


def columns(kind: Kind) -> Sequence[Column]:
    """Return the columns of a kind; name and age by default."""
    return _COLUMNS.get(kind.id, _DEFAULT)


def definitions(kind: Kind) -> list[Json]:
    """Return the `columnDefinitions` of a kind's table."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": "",
            "priority": column.priority,
        }
        for column in columns(kind)
    ]


def row(kind: Kind, body: Json, now: float, include: str = "Metadata") -> Json:
    """Return the row of an object.

    Args:
        include: the query parameter `includeObject`: `Metadata`, `Object` or `None`.
    """
    result: Json = {"cells": [column.cell(body, now) for column in columns(kind)]}
    if include == "Object":
        result["object"] = body
    elif include == "Metadata":
        result["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": body["metadata"],
        }
    return result


def table(kind: Kind, rows: list[Json], metadata: Json, api_version: str, *, headed: bool = True) -> Json:
    """Return a Table object.

    Args:
        api_version: `meta.k8s.io/v1` or `meta.k8s.io/v1beta1`, as negotiated.
        headed: whether it has column definitions; in watches only the first table has them.
    """
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": metadata,
        "columnDefinitions": definitions(kind) if headed else [],
        "rows": rows,
    }
