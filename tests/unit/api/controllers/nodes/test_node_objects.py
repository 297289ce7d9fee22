"""The Node object of a machine, from what it reports."""

import msgspec

from api.controllers.nodes import node_objects
from knoll.messages.nodes import Node
from knoll.values.json import Json

ENTRY = Node(
    name="n1",
    address="192.0.2.1",
    relay_port=7444,
    admin_port=7443,
    cores=1.5,
    memory_bytes=2 * 1024**3,
    version="v1.0.0",
    engine_id="abc",
    labels={"disk": "fast"},
)
NOON = 1_700_000_000.0


def created(entry: Node = ENTRY) -> Json:
    body = node_objects.node(entry, None, NOON)
    assert body is not None
    return body


def ready(body: Json | None) -> Json:
    assert body is not None
    conditions: list[Json] = body["status"]["conditions"]
    return next(each for each in conditions if each["type"] == "Ready")


def test_a_machine_that_reports_for_the_first_time_gets_an_object() -> None:
    body = created()
    assert body["metadata"] == {
        "name": "n1",
        "labels": {"kubernetes.io/hostname": "n1", "kubernetes.io/os": "linux", "disk": "fast"},
    }
    assert body["spec"] == {"providerID": "docker://abc"}
    assert body["status"]["capacity"] == {"cpu": "1500m", "memory": "2097152Ki"}
    assert body["status"]["addresses"] == [
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "Hostname", "address": "n1"},
    ]
    assert body["status"]["nodeInfo"]["kubeletVersion"] == "v1.0.0"
    assert (ready(body)["status"], ready(body)["reason"]) == ("True", "KubeletReady")
    assert node_objects.is_ready(body)


def test_a_heartbeat_changes_nothing() -> None:
    body = created()
    assert node_objects.node(ENTRY, body, NOON + 100) == body


def test_a_machine_that_stops_reporting_becomes_unknown_and_keeps_its_data() -> None:
    lost = node_objects.node(None, created(), NOON + 10)
    assert (ready(lost)["status"], ready(lost)["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert ready(lost)["lastTransitionTime"] == "2023-11-14T22:13:30Z"
    assert lost is not None
    assert not node_objects.is_ready(lost)
    assert lost["status"]["capacity"] == created()["status"]["capacity"]
    assert node_objects.node(None, lost, NOON + 20) == lost
    back = node_objects.node(ENTRY, lost, NOON + 30)
    assert ready(back)["lastTransitionTime"] == "2023-11-14T22:13:50Z"


def test_what_users_changed_is_kept() -> None:
    body = created()
    body["metadata"]["labels"] = {"disk": "slow"}
    body["spec"] = {"unschedulable": True}
    more = msgspec.structs.replace(ENTRY, cores=4.0)
    after = node_objects.node(more, body, NOON)
    assert after is not None
    assert (after["metadata"], after["spec"]) == (body["metadata"], body["spec"])
    assert after["status"]["allocatable"]["cpu"] == "4"


def test_without_entry_and_object_there_is_nothing() -> None:
    assert node_objects.node(None, None, NOON) is None


def test_a_manager_has_the_role_control_plane_as_long_as_it_is_one() -> None:
    label = "node-role.kubernetes.io/control-plane"
    manager = msgspec.structs.replace(ENTRY, labels={label: ""})
    worker = msgspec.structs.replace(ENTRY, labels={})
    labelled = node_objects.node(manager, {**created(), "metadata": {"name": "n1", "labels": {"own": "x"}}}, NOON)
    assert labelled is not None
    assert labelled["metadata"]["labels"] == {"own": "x", label: ""}
    # A machine that does not report keeps its role.
    assert (node_objects.node(None, labelled, NOON) or {})["metadata"]["labels"] == {"own": "x", label: ""}
    assert (node_objects.node(worker, labelled, NOON) or {})["metadata"]["labels"] == {"own": "x"}
