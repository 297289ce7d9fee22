"""The objects of a Revision that Knative's tools read: Deployment, EndpointSlices, ServerlessService, PodAutoscaler
and, for the autoscaler class hpa, HorizontalPodAutoscaler. Pure.

They are stored like all other objects and not generated on reads, so that lists, selectors and watches with their
versions need no special code. The objects of an idle Revision take 8 KB and no CPU.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.controllers.pods import pods
from api.controllers.reconciler import objects
from knoll.messages.instances import InstanceRow
from knoll.messages.scale import ScaleStatus, UsageStatus
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.kinds import Kind
from knoll.values.names import child_name
from knoll.values.timestamps import timestamp

SERVICE_NAME = "kubernetes.io/service-name"
KINDS = (
    kinds.DEPLOYMENT, kinds.ENDPOINT_SLICE, kinds.SERVERLESS_SERVICE, kinds.POD_AUTOSCALER,
    kinds.HORIZONTAL_POD_AUTOSCALER,
)  # fmt: skip
NO_LIMIT = 2**31 - 1
"""Knative's maxReplicas of a Revision without max-scale."""
_ADDRESS_TYPES = {4: "IPv4", 6: "IPv6"}
_AUTOSCALING = "autoscaling.knative.dev/"


@dataclass(frozen=True, slots=True)
class ActivatorAddress:
    """The address and port of the activator."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A Revision, its instances and its scale."""

    revision: Json
    rows: Sequence[InstanceRow]
    scale: ScaleStatus | None

    @property
    def name(self) -> str:
        return str(self.revision["metadata"]["name"])

    @property
    def ready(self) -> list[InstanceRow]:
        return [row for row in self.rows if row.stage == "ready"]

    @property
    def has_started(self) -> bool:
        """Whether the Revision reached its initial scale, and as many instances as it should have are ready."""
        return self.scale is not None and self.scale.initial_reached and len(self.ready) >= self.scale.desired

    @property
    def protocol(self) -> str:
        """`http1` or `h2c`."""
        ports = pods.serving_container(self.revision).get("ports") or [{}]
        return "h2c" if ports[0].get("name") == "h2c" else "http1"


def names(revision: str) -> list[tuple[Kind, str]]:
    """Kind and name of each of a Revision's objects."""
    return [
        (kinds.DEPLOYMENT, child_name(revision, "-deployment")),
        (kinds.ENDPOINT_SLICE, child_name(revision, "-private")),
        (kinds.ENDPOINT_SLICE, revision),
        (kinds.SERVERLESS_SERVICE, revision),
        (kinds.POD_AUTOSCALER, revision),
        (kinds.HORIZONTAL_POD_AUTOSCALER, revision),
    ]


def desired_objects(
    view: RevisionView, gateway: ActivatorAddress, before: Mapping[tuple[str, str], Json], now: float
) -> list[tuple[Kind, Json]]:
    """Return the objects of a Revision.

    Args:
        before: by resource id and name, the existing objects.
        now: epoch seconds, for conditions that change.
    """
    makers = (
        _deployment(view),
        {"addressType": "IPv4", "endpoints": [_endpoint(row, view) for row in view.ready], "ports": _ports(view)},
        activator_slice(gateway),
        _serverless_service(view),
        _autoscaler(view),
        _horizontal(view, view.scale.usage) if view.scale and view.scale.usage else None,
    )
    result = []
    for (kind, name), parts in zip(names(view.name), makers, strict=True):
        if parts is None:
            continue
        there = before.get((kind.id, name))
        result.append((kind, _object(kind, name, parts, view, there, now)))
    return result


def _object(kind: Kind, name: str, parts: Json, view: RevisionView, before: Json | None, now: float) -> Json:
    labels = pods.labels(view.revision)
    if kind is kinds.ENDPOINT_SLICE:
        labels[SERVICE_NAME] = name
    if before is None:
        owner = objects.owner_reference(kinds.REVISION, view.revision)
        meta: Json = {
            "name": name,
            "namespace": view.revision["metadata"]["namespace"],
            "ownerReferences": [{**owner, "blockOwnerDeletion": False}],
        }
    else:
        meta = dict(before["metadata"])
    meta["labels"] = labels
    annotations = {key: value for key, value in objects.annotations(view.revision).items() if _AUTOSCALING in key}
    if annotations:
        meta["annotations"] = annotations
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, **parts}
    if "status" in parts:
        facts = parts["status"]["conditions"]
        conditions = pods.conditions(facts, (before or {}).get("status") or {}, now)
        body["status"] = {**parts["status"], "conditions": conditions}
        if before is not None:
            body = objects.with_generation(before, body)
        body["status"]["observedGeneration"] = int(body["metadata"].get("generation") or 1)
    return body


def _deployment(view: RevisionView) -> Json:
    alive = [row for row in view.rows if row.stage not in ("draining", *pods.RESTING)]
    ready = len(view.ready)
    desired = view.scale.desired if view.scale else 0
    return {
        "spec": {
            "replicas": desired,
            "selector": {"matchLabels": {well_known.REVISION_UID: view.revision["metadata"]["uid"]}},
            "template": {"metadata": {"labels": pods.labels(view.revision)}, "spec": pods.pod_spec(view.revision)},
        },
        "status": {
            "replicas": len(alive),
            "updatedReplicas": len(alive),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, max(desired, len(alive)) - ready),
            "conditions": [
                ("Available", ready >= desired, "" if ready >= desired else "MinimumReplicasUnavailable"),
                ("Progressing", True, ""),
            ],
        },
    }


def _endpoint(row: InstanceRow, view: RevisionView) -> Json:
    return {
        "addresses": [row.address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": view.revision["metadata"]["namespace"], "name": row.name},
    }


def _ports(view: RevisionView) -> list[Json]:
    ports = pods.serving_container(view.revision).get("ports") or [{}]
    return [{"name": view.protocol, "port": ports[0].get("containerPort") or 8080, "protocol": "TCP"}]


def activator_slice(gateway: ActivatorAddress) -> Json:
    """The content of an EndpointSlice with the activator, which is always in front of the instances."""
    try:
        type_ = _ADDRESS_TYPES[ipaddress.ip_address(gateway.address).version]
    except ValueError:
        type_ = "FQDN"
    conditions = {"ready": True, "serving": True, "terminating": False}
    return {
        "addressType": type_,
        "endpoints": [{"addresses": [gateway.address], "conditions": conditions}],
        "ports": [{"name": "http", "port": gateway.port, "protocol": "TCP"}],
    }


def _reference(view: RevisionView) -> Json:
    deployment = child_name(view.name, "-deployment")
    return {"apiVersion": kinds.DEPLOYMENT.api_version, "kind": kinds.DEPLOYMENT.kind, "name": deployment}


def _serverless_service(view: RevisionView) -> Json:
    populated, reason = (True, "") if view.ready else (None, "NoHealthyBackends")
    return {
        "spec": {
            "mode": "Proxy",
            "numActivators": 1,
            "objectRef": _reference(view),
            "protocolType": view.protocol,
        },
        "status": {
            "serviceName": view.name,
            "privateServiceName": child_name(view.name, "-private"),
            "conditions": [
                ("ActivatorEndpointsPopulated", True, ""),
                ("EndpointsPopulated", populated, reason),
                ("Ready", populated, reason),
            ],
        },
    }


def _autoscaler(view: RevisionView) -> Json:
    scale = view.scale
    active = {"True": True, "False": False}.get(scale.active) if scale else None
    reason = scale.active_reason if scale else "Deploying"
    reached = bool(scale and scale.initial_reached) or None
    reachable = objects.labels(view.revision).get(well_known.ROUTING_STATE) == well_known.ACTIVE
    populated, backends = (True, "") if view.ready else (None, "NoHealthyBackends")
    return {
        "spec": {
            "containerConcurrency": view.revision["spec"].get("containerConcurrency") or 0,
            "protocolType": view.protocol,
            "reachability": "Reachable" if reachable else "Unreachable",
            "scaleTargetRef": _reference(view),
        },
        "status": {
            "desiredScale": scale.desired if scale else 0,
            "actualScale": scale.actual if scale else 0,
            "serviceName": view.name,
            "metricsServiceName": child_name(view.name, "-private"),
            "decisions": [
                {"time": timestamp(change.at), "desiredScale": change.want, "message": change.why}
                for change in (scale.changes if scale else ())
            ],
            "conditions": [
                ("Active", active, reason),
                ("Ready", active, reason),
                ("SKSReady", populated, backends),
                ("ScaleTargetInitialized", reached, "" if reached else "Deploying"),
            ],
        },
    }


def _horizontal(view: RevisionView, usage: UsageStatus) -> Json:
    scale = view.scale
    desired = scale.desired if scale else 0
    measured = usage.average is not None
    reason = "ValidMetricFound" if measured else "FailedGetResourceMetric" if usage.problem else "SucceededGetScale"
    limited = bool(usage.most and desired >= usage.most) or desired <= usage.least
    why = "DesiredWithinRange" if not limited else "TooFewReplicas" if desired <= usage.least else "TooManyReplicas"
    return {
        "spec": {
            "minReplicas": usage.least,
            "maxReplicas": usage.most or NO_LIMIT,
            "scaleTargetRef": _reference(view),
            "metrics": [_metric(usage.metric, "target", usage.target)],
        },
        "status": {
            "currentReplicas": scale.actual if scale else 0,
            "desiredReplicas": desired,
            "currentMetrics": [] if usage.average is None else [_metric(usage.metric, "current", usage.average)],
            "conditions": [
                ("AbleToScale", True, "ReadyForNewScale"),
                ("ScalingActive", measured if measured or usage.problem else None, reason),
                ("ScalingLimited", limited, why),
            ],
        },
    }


def _metric(name: str, of: str, value: float) -> Json:
    """Args: of: `target` or `current`."""
    amount: Json = {"averageUtilization": round(value)} if name == "cpu" else {"averageValue": str(round(value))}
    if of == "target":
        amount = {"type": "Utilization" if name == "cpu" else "AverageValue", **amount}
    return {"type": "Resource", "resource": {"name": name, of: amount}}
