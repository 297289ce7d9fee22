"""The Pod of an instance, and the objects behind its Revision, in each state."""

from typing import Any

import msgspec
import pytest

from api.controllers.pods import knative_objects, pods
from api.controllers.pods.knative_objects import ActivatorAddress, RevisionView
from api.wire import tables
from knoll.messages.instances import ContainerEnd, ContainerRow, InstanceRow, Stage
from knoll.messages.scale import ScaleStatus, UsageStatus
from knoll.values import kinds
from knoll.values import labels as well_known

NOW, LATER = 1_700_000_000.0, 1_700_000_060.0
STARTED = "2023-11-14T22:13:20Z"
IMAGE = "registry/hello@sha256:aa"
GATEWAY = ActivatorAddress("127.0.0.1", 8080)


def revision(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": "hello-00001",
            "namespace": "default",
            "uid": "rev-uid",
            "labels": {
                "serving.knative.dev/service": "hello",
                "serving.knative.dev/serviceUID": "svc-uid",
                "serving.knative.dev/configuration": "hello",
                "serving.knative.dev/routingState": "active",
                "team": "red",
            },
            "annotations": {
                "serving.knative.dev/routes": "hello",
                "autoscaling.knative.dev/min-scale": "1",
            },
        },
        "spec": {
            "containers": [{"name": "user-container", "image": "registry/hello:v1"}],
            "timeoutSeconds": 30,
            **spec,
        },
    }


def row(stage: Stage = "ready", address: str = "10.0.0.7", **container: Any) -> InstanceRow:
    running = {"running": True, "ready": stage in ("ready", "draining"), "started": NOW}
    user_container = ContainerRow(**{"name": "user-container", "image": IMAGE, **running, **container})
    return InstanceRow("hello-00001-deployment-aa-bbbbb", address, 8080, stage, NOW, (user_container,))


WAITING: dict[str, Any] = {"running": False, "ready": False, "started": 0.0}
CRASHED: dict[str, Any] = {
    "running": False,
    "ready": False,
    "restarts": 3,
    "reason": "CrashLoopBackOff",
    "last": ContainerEnd(5, "Error", NOW),
}
IMAGE_MISSING: dict[str, Any] = {**WAITING, "reason": "ErrImagePull", "message": "no such image"}
ENDED = {"terminated": {"exitCode": 5, "reason": "Error", "finishedAt": STARTED}}


@pytest.mark.parametrize(
    ("given", "phase", "ready", "state", "last"),
    [
        (row(), "Running", "True", {"running": {"startedAt": STARTED}}, {}),
        (row("draining"), "Running", "True", {"running": {"startedAt": STARTED}}, {}),
        (row("starting"), "Running", "False", {"running": {"startedAt": STARTED}}, {}),
        (row("unready"), "Running", "False", {"running": {"startedAt": STARTED}}, {}),
        (
            row("starting", "", **WAITING, reason="ContainerCreating"),
            "Pending", "False", {"waiting": {"reason": "ContainerCreating"}}, {},
        ),
        (
            row("starting", "", **IMAGE_MISSING),
            "Pending", "False", {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, {},
        ),
        (
            row("starting", "", **WAITING, reason="Unschedulable", message="0/1 nodes"),
            "Pending", "False", {"waiting": {"reason": "Unschedulable", "message": "0/1 nodes"}}, {},
        ),
        (row("paused"), "Running", "False", {"running": {"startedAt": STARTED}}, {}),
        (row("stopped", **WAITING, reason="Stopped"), "Running", "False", {"waiting": {"reason": "Stopped"}}, {}),
        (row("unready", **CRASHED), "Running", "False", {"waiting": {"reason": "CrashLoopBackOff"}}, ENDED),
    ],
    ids=["ready", "draining", "runs", "unready", "creating", "no image", "no room", "paused", "stopped", "crashed"],
)  # fmt: skip
def test_a_pod_shows_its_instance(given: InstanceRow, phase: str, ready: str, state: Any, last: Any) -> None:
    status = pods.pod(revision(), given, None, NOW)["status"]
    container, queue_proxy = status["containerStatuses"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert (status["phase"], conditions["Ready"], container["state"], container["lastState"]) == (
        phase, ready, state, last,
    )  # fmt: skip
    assert status.get("podIP", "") == given.address
    assert conditions["PodScheduled"] == str(bool(given.address))
    assert (queue_proxy["name"], str(queue_proxy["ready"]), queue_proxy["restartCount"]) == ("queue-proxy", ready, 0)
    assert list(queue_proxy["state"]) == ["running" if phase == "Running" else "waiting"]


def test_a_pod_has_the_labels_and_the_owner_of_its_revision() -> None:
    made = pods.pod(revision(), row(), None, NOW)
    assert made["metadata"]["labels"] == {
        "app": "hello-00001",
        "serving.knative.dev/service": "hello",
        "serving.knative.dev/serviceUID": "svc-uid",
        "serving.knative.dev/configuration": "hello",
        "serving.knative.dev/revision": "hello-00001",
        "serving.knative.dev/revisionUID": "rev-uid",
        "team": "red",
    }
    assert made["metadata"]["annotations"] == {
        "autoscaling.knative.dev/min-scale": "1",
        "kubectl.kubernetes.io/default-container": "user-container",
    }
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        "Revision", "rev-uid", True, False,
    )  # fmt: skip
    assert made["metadata"]["finalizers"] == ["knoll.dev/instance"]
    assert made["spec"]["containers"] == [
        {"name": "user-container", "image": IMAGE}, {"name": "queue-proxy", "image": "knoll"},
    ]  # fmt: skip
    assert made["spec"]["terminationGracePeriodSeconds"] == 30


def test_a_pod_of_an_earlier_release_keeps_its_containers() -> None:
    before = pods.pod(revision(), row(), None, NOW)
    before["spec"]["containers"].pop()
    after = pods.pod(revision(), row("unready"), before, LATER)
    for containers in (after["spec"]["containers"], after["status"]["containerStatuses"]):
        assert [container["name"] for container in containers] == ["user-container"]


def test_the_default_container_is_the_one_with_the_port() -> None:
    containers = [{"name": "beside", "image": "b"}, {"name": "front", "image": "f", "ports": [{"containerPort": 80}]}]
    made = pods.pod(revision(containers=containers), row(), None, NOW)
    assert made["metadata"]["annotations"][pods.DEFAULT_CONTAINER] == "front"


@pytest.mark.parametrize(("stage", "reason"), [("paused", "Paused"), ("stopped", "Stopped")])
def test_an_idle_instance_has_its_idle_state_as_reason(stage: Stage, reason: str) -> None:
    made = pods.pod(revision(), row(stage), None, NOW)
    reasons = {condition["type"]: condition.get("reason") for condition in made["status"]["conditions"]}
    assert reasons["Ready"] == reasons["ContainersReady"] == reason


def test_the_message_of_a_paused_instance_names_what_it_keeps() -> None:
    paused = msgspec.structs.replace(row("paused"), memory_bytes=4096)
    assert pods.pod(revision(), paused, None, NOW)["metadata"]["annotations"][well_known.KEPT_MEMORY] == "4096"


def test_conditions_keep_the_time_at_which_they_changed() -> None:
    starting = pods.pod(revision(), row("starting"), None, NOW)
    ready = pods.pod(revision(), row(), starting, LATER)
    times = {condition["type"]: condition["lastTransitionTime"] for condition in ready["status"]["conditions"]}
    assert times["PodScheduled"] == STARTED
    assert times["Ready"] == "2023-11-14T22:14:20Z"


def test_what_has_not_changed_is_not_written() -> None:
    made = {**pods.pod(revision(), row(), None, NOW)}
    made["metadata"] = {**made["metadata"], "resourceVersion": "7", "deletionTimestamp": STARTED, "uid": "pod-uid"}
    assert pods.pod(revision(), row(), made, LATER) == made


def scale(desired: int, actual: int, active: Any = "True", reason: str = "") -> ScaleStatus:
    return ScaleStatus("rev-uid", desired, actual, initial_reached=True, active=active, active_reason=reason)


ZERO = scale(0, 0, "False", "NoTraffic")


def stood(*rows: InstanceRow, status: ScaleStatus | None) -> dict[str, Any]:
    made = knative_objects.desired_objects(RevisionView(revision(), rows, status), GATEWAY, {}, NOW)
    return {f"{kind.kind}/{body['metadata']['name']}": body for kind, body in made}


@pytest.mark.parametrize(
    ("rows", "status", "replicas", "counts", "addresses", "active"),
    [
        ((), None, 0, (0, 0, 0), [], "Unknown"),
        ((), ZERO, 0, (0, 0, 0), [], "False"),
        ((row(),), scale(1, 1), 1, (1, 1, 0), [["10.0.0.7"]], "True"),
        ((row("starting"),), scale(1, 0, "Unknown", "Queued"), 1, (1, 0, 1), [], "Unknown"),
        ((row("unready"),), scale(1, 0, "Unknown", "Queued"), 1, (1, 0, 1), [], "Unknown"),
        ((row("draining"),), ZERO, 0, (0, 0, 0), [], "False"),
        ((row(), row("draining")), scale(2, 1), 2, (1, 1, 1), [["10.0.0.7"]], "True"),
    ],
    ids=["new", "zero", "one", "starts", "unready", "drains", "one of two"],
)
def test_the_objects_behind_a_revision_follow_its_instances(
    rows: tuple[InstanceRow, ...], status: ScaleStatus | None, replicas: int, counts: Any, addresses: Any, active: str
) -> None:
    made = stood(*rows, status=status)
    deployment = made["Deployment/hello-00001-deployment"]
    shown = deployment["status"]
    assert deployment["spec"]["replicas"] == replicas
    assert (shown["replicas"], shown["readyReplicas"], shown["unavailableReplicas"]) == counts
    private = made["EndpointSlice/hello-00001-private"]
    assert [endpoint["addresses"] for endpoint in private["endpoints"]] == addresses
    assert private["metadata"]["labels"]["kubernetes.io/service-name"] == "hello-00001-private"
    scaler = made["PodAutoscaler/hello-00001"]["status"]
    assert {condition["type"]: condition["status"] for condition in scaler["conditions"]}["Active"] == active
    assert scaler["desiredScale"] == replicas


@pytest.mark.parametrize(
    ("usage", "target", "current", "active", "shown"),
    [
        (UsageStatus("cpu", 50.0, 30, "", 1, 3), {"type": "Utilization", "averageUtilization": 50},
         {"averageUtilization": 30}, ("True", "ValidMetricFound"), "cpu: 30%/50%"),
        (UsageStatus("memory", 2.0**20, 4096, "", 1, 0), {"type": "AverageValue", "averageValue": "1048576"},
         {"averageValue": "4096"}, ("True", "ValidMetricFound"), "memory: 4096/1048576"),
        (UsageStatus("cpu", 50.0, None, "missing request", 1, 0), {"type": "Utilization", "averageUtilization": 50},
         None, ("False", "FailedGetResourceMetric"), "cpu: <unknown>/50%"),
    ],
    ids=["cpu", "memory", "unknown"],
)  # fmt: skip
def test_a_revision_that_is_scaled_by_its_usage_has_a_horizontal_pod_autoscaler(
    usage: UsageStatus, target: Any, current: Any, active: tuple[str, str], shown: str
) -> None:
    made = stood(row(), status=msgspec.structs.replace(scale(1, 1), usage=usage))
    hpa = made["HorizontalPodAutoscaler/hello-00001"]
    assert hpa["spec"]["scaleTargetRef"]["name"] == "hello-00001-deployment"
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (1, usage.most or 2**31 - 1)
    assert hpa["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": usage.metric, "target": target}}]
    seen = [metric["resource"]["current"] for metric in hpa["status"]["currentMetrics"]]
    assert seen == ([] if current is None else [current])
    conditions = {condition["type"]: condition for condition in hpa["status"]["conditions"]}
    scaling_active = conditions["ScalingActive"]
    assert (scaling_active["status"], scaling_active["reason"]) == active
    columns = {column.name: column.cell(hpa, NOW) for column in tables.columns(kinds.HORIZONTAL_POD_AUTOSCALER)}
    assert (columns["Reference"], columns["Targets"]) == ("Deployment/hello-00001-deployment", shown)


def test_other_revisions_have_none() -> None:
    assert not [name for name in stood(row(), status=scale(1, 1)) if name.startswith("Horizontal")]


def test_the_gateway_is_in_front_of_the_instances() -> None:
    made = stood(row(), status=scale(1, 1))
    public = made["EndpointSlice/hello-00001"]
    assert (public["addressType"], public["endpoints"][0]["addresses"], public["ports"][0]["port"]) == (
        "IPv4", ["127.0.0.1"], 8080,
    )  # fmt: skip
    sks = made["ServerlessService/hello-00001"]
    assert (sks["spec"]["mode"], sks["spec"]["numActivators"]) == ("Proxy", 1)
    assert sks["status"]["privateServiceName"] == "hello-00001-private"


@pytest.mark.parametrize(
    ("address", "type_"), [("10.0.0.1", "IPv4"), ("fd00::1", "IPv6"), ("gateway.example.com", "FQDN")]
)
def test_the_gateways_address_has_its_type(address: str, type_: str) -> None:
    made = knative_objects.desired_objects(RevisionView(revision(), (), ZERO), ActivatorAddress(address, 80), {}, NOW)
    public = next(body for _, body in made if body["metadata"]["name"] == "hello-00001" and "addressType" in body)
    assert public["addressType"] == type_


def test_a_deployments_generation_follows_its_replicas_and_nothing_else() -> None:
    def there(made: list[tuple[kinds.Kind, dict[str, Any]]], generation: int) -> dict[tuple[str, str], dict[str, Any]]:
        for _, body in made:
            body["metadata"].setdefault("generation", generation)
        return {(kind.id, body["metadata"]["name"]): body for kind, body in made}

    first = there(knative_objects.desired_objects(RevisionView(revision(), (), ZERO), GATEWAY, {}, NOW), 1)
    again = knative_objects.desired_objects(RevisionView(revision(), (), ZERO), GATEWAY, first, LATER)
    assert {(kind.id, body["metadata"]["name"]): body for kind, body in again} == first
    _, deployment = knative_objects.desired_objects(
        RevisionView(revision(), (row(),), scale(1, 1)), GATEWAY, first, LATER
    )[0]
    assert deployment["metadata"]["generation"] == deployment["status"]["observedGeneration"] == 2
