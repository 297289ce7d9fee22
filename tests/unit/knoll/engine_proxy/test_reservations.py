"""The services of a Swarm that the autoscaler may create: reservations only, which run no program of a user."""

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.placement.swarm import reservation_image
from knoll.engine_proxy import reservations
from knoll.engine_proxy.policy import AUTOSCALER, BUILDER, PathTarget, ProxyPolicy, RefusedError
from knoll.engine_proxy.rules import is_ours, judge, rewritten

POLICY = ProxyPolicy(AUTOSCALER, "knoll", "knoll-instances", swarm=True)
NODE = "7223cq5o76sr68gdngot8v95w"
IMAGE = reservation_image.image_id("amd64")
NAME = "knoll-0123456789abcdef"
SERVICE = reservations.service("knoll", NAME, IMAGE, 10**8, 2**26, [f"node.id!={NODE}"])
OURS = f"filters={json.dumps({'label': ['knoll.dev/platform=knoll']})}"


def create(body: Any) -> Any:
    return json.loads(rewritten(POLICY, judge(POLICY, "POST", "/services/create").call, json.dumps(body).encode())[0])


def changed(path: str, value: Any) -> Any:
    """Return the service with one field, at `a.b.c`, that has another value."""
    body = copy.deepcopy(SERVICE)
    *folders, last = path.split(".")
    target = body
    for each in folders:
        target = target.setdefault(each, {})
    target[last] = value
    return body


@pytest.mark.parametrize(
    "body",
    [
        SERVICE,
        reservations.service("knoll", NAME, IMAGE, 0, 0, []),
        reservations.service("knoll", NAME, reservation_image.image_id("arm64"), 1, 0, [f"node.id=={NODE}"]),
    ],
    ids=["both", "nothing", "one node"],
)
def test_a_reservation_passes_unchanged(body: Any) -> None:
    assert create(body) == body


def test_the_image_and_its_archives_are_those_of_the_autoscaler() -> None:
    architectures = ("amd64", "arm64")
    assert {reservation_image.image_id(each) for each in architectures} == reservations.IMAGES
    digests = {hashlib.sha256(reservation_image.archive(each)).hexdigest() for each in architectures}
    assert digests == reservations.ARCHIVES


CONTAINER, TEMPLATE = "TaskTemplate.ContainerSpec", "TaskTemplate"
FORBIDDEN: dict[str, tuple[str, Any]] = {
    "another image": (f"{CONTAINER}.Image", "sha256:" + "0" * 64),
    "an image by its name": (f"{CONTAINER}.Image", reservation_image.REFERENCE),
    "a command": (f"{CONTAINER}.Command", ["/bin/sh"]),
    "arguments": (f"{CONTAINER}.Args", ["-c", "x"]),
    "root": (f"{CONTAINER}.User", "0"),
    "variables": (f"{CONTAINER}.Env", ["LD_PRELOAD=/x"]),
    "a mount of the machine": (f"{CONTAINER}.Mounts", [{"Type": "bind", "Source": "/", "Target": "/host"}]),
    "a volume": (f"{CONTAINER}.Mounts", [{"Type": "volume", "Source": "knoll_redis", "Target": "/data"}]),
    "a cluster volume": (f"{CONTAINER}.Mounts", [{"Type": "cluster", "Source": "x", "Target": "/data"}]),
    "a secret": (f"{CONTAINER}.Secrets", [{"SecretName": "x", "File": {"Name": "x"}}]),
    "a configuration": (f"{CONTAINER}.Configs", [{"ConfigName": "x", "File": {"Name": "/x"}}]),
    "capabilities": (f"{CONTAINER}.CapabilityAdd", ["CAP_SYS_ADMIN"]),
    "capabilities kept": (f"{CONTAINER}.CapabilityDrop", []),
    "new privileges": (f"{CONTAINER}.Privileges", {"NoNewPrivileges": False}),
    "no system call filter": (f"{CONTAINER}.Privileges.Seccomp", {"Mode": "unconfined"}),
    "no AppArmor": (f"{CONTAINER}.Privileges.AppArmor", {"Mode": "disabled"}),
    "an SELinux context": (f"{CONTAINER}.Privileges.SELinuxContext", {"Disable": True}),
    "a credential": (f"{CONTAINER}.Privileges.CredentialSpec", {"File": "x"}),
    "a root that can be written": (f"{CONTAINER}.ReadOnly", False),
    "a kernel setting": (f"{CONTAINER}.Sysctls", {"net.ipv4.ip_forward": "0"}),
    "a limit of its own": (f"{CONTAINER}.Ulimits", [{"Name": "nofile", "Hard": 10**6}]),
    "hosts": (f"{CONTAINER}.Hosts", ["10.0.0.1 redis"]),
    "a name server": (f"{CONTAINER}.DNSConfig", {"Nameservers": ["10.0.0.1"]}),
    "an init process": (f"{CONTAINER}.Init", True),
    "a terminal": (f"{CONTAINER}.TTY", True),
    "a health check": (f"{CONTAINER}.HealthCheck", {"Test": ["CMD", "/x"]}),
    "groups": (f"{CONTAINER}.Groups", ["docker"]),
    "any number of processes": (f"{TEMPLATE}.Resources.Limits", {}),
    "other resources": (f"{TEMPLATE}.Resources.Reservations.GenericResources", [{"DiscreteResourceSpec": {}}]),
    "negative resources": (f"{TEMPLATE}.Resources.Reservations.NanoCPUs", -1),
    "true resources": (f"{TEMPLATE}.Resources.Reservations.NanoCPUs", True),
    "resources as text": (f"{TEMPLATE}.Resources.Reservations.MemoryBytes", "1"),
    "starting again": (f"{TEMPLATE}.RestartPolicy", {"Condition": "any"}),
    "other constraints": (f"{TEMPLATE}.Placement.Constraints", ["node.role==manager"]),
    "a constraint that is an object": (f"{TEMPLATE}.Placement.Constraints", [{"node.id": NODE}]),
    "constraints as text": (f"{TEMPLATE}.Placement.Constraints", f"node.id=={NODE}"),
    "preferences": (f"{TEMPLATE}.Placement.Preferences", [{"Spread": {"SpreadDescriptor": "node.labels.x"}}]),
    "another network": (f"{TEMPLATE}.Networks", [{"Target": "knoll_control"}]),
    "two networks": (f"{TEMPLATE}.Networks", [{"Target": "host"}, {"Target": "knoll_control"}]),
    "aliases": (f"{TEMPLATE}.Networks", [{"Target": "host", "Aliases": ["redis"]}]),
    "another log": (f"{TEMPLATE}.LogDriver", {"Name": "syslog"}),
    "a plugin": (f"{TEMPLATE}.Runtime", "plugin"),
    "a plugin's specification": (f"{TEMPLATE}.PluginSpec", {"Name": "x", "Remote": "evil", "PluginPrivilege": []}),
    "two containers": ("Mode", {"Replicated": {"Replicas": 2}}),
    "one on each machine": ("Mode", {"Global": {}}),
    "a job": ("Mode", {"ReplicatedJob": {"MaxConcurrent": 1}}),
    "a published port": ("EndpointSpec", {"Ports": [{"TargetPort": 80, "PublishedPort": 80}]}),
    "networks of the old kind": ("Networks", [{"Target": "knoll_control"}]),
    "another platform's name": ("Name", "other-0123456789abcdef"),
    "any name": ("Name", "knoll-api"),
    "no name": ("Name", None),
    "another platform's label": ("Labels", {"knoll.dev/platform": "other", "knoll.dev/role": "reservation"}),
    "another role": (f"{CONTAINER}.Labels", {"knoll.dev/platform": "knoll", "knoll.dev/role": "sandbox"}),
    "more labels": (f"{CONTAINER}.Labels", {**SERVICE["Labels"], "knoll.dev/instance": "x"}),
    "an update": ("UpdateConfig", {"Parallelism": 1}),
    "other letters": ("tasktemplate", {"ContainerSpec": {"Image": "evil"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_service_is_created_with(name: str) -> None:
    with pytest.raises(RefusedError, match=r"^service"):
        create(changed(*FORBIDDEN[name]))


@pytest.mark.parametrize("body", [None, [], "x", 1, {}, {"Name": NAME}, {"Name": NAME, "TaskTemplate": []}])
def test_no_other_value_is_a_service(body: Any) -> None:
    with pytest.raises(RefusedError):
        create(body)


def test_repeated_names_cannot_hide_one_another() -> None:
    text = '{"TaskTemplate": {"ContainerSpec": {"Image": "evil"}}, ' + json.dumps(SERVICE)[1:]
    data, _ = rewritten(POLICY, judge(POLICY, "POST", "/services/create").call, text.encode())
    assert json.loads(data) == SERVICE, "what is sent is what was checked"


CALLS = [
    ("GET", "/nodes"), ("GET", f"/services?{OURS}"), ("GET", f"/tasks?{OURS}"), ("POST", "/services/create"),
    ("DELETE", f"/services/{NODE}"), ("POST", "/images/load?quiet=1"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target"), CALLS)
def test_what_placement_needs_passes_only_for_the_autoscaler_of_several_machines(method: str, target: str) -> None:
    kind = judge(POLICY, method, target).call.target
    assert kind is (PathTarget.SERVICE if method == "DELETE" else PathTarget.NONE)
    with pytest.raises(RefusedError):
        judge(ProxyPolicy(AUTOSCALER, "knoll", "knoll-instances"), method, target)
    if "images" not in target:
        with pytest.raises(RefusedError):
            judge(ProxyPolicy(BUILDER, "knoll", "knoll-instances", swarm=True), method, target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/services"), ("GET", "/tasks"), ("GET", '/services?filters={"label":["knoll.dev/platform=other"]}'),
        ("POST", f"/services/{NODE}/update?version=1"), ("GET", f"/services/{NODE}/logs"), ("DELETE", "/services/api"),
        ("DELETE", f"/services/{NODE}/x"), ("POST", f"/nodes/{NODE}/update?version=1"), ("DELETE", f"/nodes/{NODE}"),
        ("POST", "/swarm/init"), ("POST", "/swarm/join"), ("POST", "/swarm/leave"), ("POST", "/swarm/update"),
        ("GET", "/swarm"), ("GET", "/swarm/unlockkey"), ("GET", "/secrets"), ("POST", "/secrets/create"),
        ("GET", "/configs"), ("GET", f"/tasks/{NODE}/logs"), ("POST", "/images/x/tag?repo=redis"),
    ],
)  # fmt: skip
def test_nothing_else_of_a_swarm_may_be_called(method: str, target: str) -> None:
    with pytest.raises(RefusedError):
        judge(POLICY, method, target)


@given(st.binary(max_size=100))
def test_no_image_is_loaded_but_that_of_reservations(content: bytes) -> None:
    call = judge(POLICY, "POST", "/images/load").call
    archive = reservation_image.archive("amd64")
    assert rewritten(POLICY, call, archive) == (archive, ())
    for body in (content, archive + content + b"x", content + b"x" + archive):
        with pytest.raises(RefusedError, match="only the image of reservations"):
            rewritten(POLICY, call, body)


def test_containers_of_reservations_are_not_touched() -> None:
    """A container that joins the network of one would use the machine's network."""
    labels = SERVICE["TaskTemplate"]["ContainerSpec"]["Labels"]
    assert not is_ours(POLICY, PathTarget.CONTAINER, {"Config": {"Labels": labels}})
    assert is_ours(POLICY, PathTarget.SERVICE, {"Spec": {"Labels": labels}})
    assert not is_ours(POLICY, PathTarget.SERVICE, {"Spec": {"Labels": {"knoll.dev/platform": "other"}}})
    assert not is_ours(POLICY, PathTarget.SERVICE, {"Labels": labels})
