"""Which calls of the engine are allowed: all that the runtime makes, and none that gives access to the machine."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker import payloads
from autoscaler.runtime.model import ContainerSpec, InstanceSpec, Mount, Resources
from knoll.engine_proxy.policy import AUTOSCALER, BUILDER, PathTarget, ProxyPolicy, RefusedError
from knoll.engine_proxy.rules import CALLS, is_ours, judge, rewritten

POLICY = ProxyPolicy(AUTOSCALER, "knoll", "knoll-instances")
FOR_BUILDER = ProxyPolicy(BUILDER, "knoll", "knoll-instances")
ID = "a" * 64
LABELS = {"knoll.dev/platform": "knoll"}
OURS = f"filters={json.dumps({'label': ['knoll.dev/platform=knoll']})}"

SPEC = ContainerSpec(
    "app", "image", env={"A": "b"}, user=1000, working_dir="/x", resources=Resources(0.1, 1.0, 10**6, 10**7),
    mounts=(Mount("/tmp", "tmpfs"), Mount("/c", "own", "files.uid.c", read_only=True, sub_path="part")),
    command=("/run",), args=("x",),
)  # fmt: skip
APP = payloads.container(
    InstanceSpec("app-1", "default/app", "uid", (SPEC,), 8080), SPEC, platform="knoll", role="app", sandbox_id=ID,
    group="g", address="10.0.0.1", image_id="sha256:1", image_has_tmp=False, now=1.0,
)  # fmt: skip
SHAPES = {
    "sandbox": payloads.sandbox("knoll", "knoll-instances", "knoll/pause:3", "host", "g", "10.0.0.3"),
    "app": APP,
    "helper": payloads.helper("knoll", "knoll/pause:3", "knoll.files.x", "/v", ["a"]),
    "look": payloads.never_started("knoll", "sha256:1"),
}


def create(body: Any) -> tuple[Any, tuple[str, ...]]:
    data, joined = rewritten(
        POLICY, judge(POLICY, "POST", "/v1.45/containers/create?name=x").call, json.dumps(body).encode()
    )
    return json.loads(data), joined


@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_runtime_creates_passes_unchanged(shape: str) -> None:
    body, joined = create(SHAPES[shape])
    assert body == SHAPES[shape]
    assert set(joined) == ({ID} if shape == "app" else set())


DEFAULTS = {
    "Binds": None, "ContainerIDFile": "", "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False, "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "CgroupnsMode": "host",
    "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False,
    "PublishAllPorts": False, "UTSMode": "", "UsernsMode": "", "ShmSize": 67108864, "Runtime": "runc", "Isolation": "",
    "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "CpusetCpus": "", "Devices": [],
    "DeviceCgroupRules": None, "DeviceRequests": None, "MemorySwappiness": None, "OomKillDisable": False,
    "Ulimits": None, "IOMaximumIOps": 0, "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"],
}  # fmt: skip


def test_a_container_is_recreated_from_its_inspection() -> None:
    config = {**APP, "Domainname": "", "AttachStdout": False, "Volumes": None, "NetworkDisabled": False}
    config.pop("HostConfig")
    description = {"Config": config, "Image": "sha256:1", "HostConfig": {**APP["HostConfig"], **DEFAULTS}}
    body, _ = create(payloads.recreate(description, restarts=1, now=2.0))
    assert body["HostConfig"].keys() == {*APP["HostConfig"], "RestartPolicy"}
    assert not {"MaskedPaths", "ReadonlyPaths", "CgroupnsMode"} & body["HostConfig"].keys(), (
        "the engine's default holds"
    )


FORBIDDEN: dict[str, dict[str, Any]] = {
    "privileged": {"Privileged": True},
    "privileged in other letters": {"privileged": True},
    "the host's network": {"NetworkMode": "host"},
    "another network": {"NetworkMode": "knoll_control"},
    "the default network": {"NetworkMode": "default"},
    "the host's processes": {"PidMode": "host"},
    "another's processes": {"PidMode": f"container:{ID}"},
    "the host's IPC": {"IpcMode": "host"},
    "the host's names": {"UTSMode": "host"},
    "the host's users": {"UsernsMode": "host"},
    "a bind": {"Binds": ["/:/host"]},
    "a bind mount": {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
    "a volume that is a bind": {"Mounts": [{"Type": "volume", "Source": "knoll.x", "Target": "/h", "VolumeOptions": {
        "DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}}}]},
    "another's volume": {"Mounts": [{"Type": "volume", "Source": "knoll_redis", "Target": "/h"}]},
    "a volume without a name": {"Mounts": [{"Type": "volume", "Target": "/h"}]},
    "a mount without a type": {"Mounts": [{"Source": "knoll.x", "Target": "/h"}]},
    "another's volumes": {"VolumesFrom": ["knoll-redis-1"]},
    "a device": {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]},
    "all devices": {"DeviceCgroupRules": ["a *:* rwm"]},
    "a GPU": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]},
    "a capability": {"CapAdd": ["SYS_ADMIN"]},
    "all capabilities": {"CapAdd": ["ALL"]},
    "a capability with its prefix": {"CapAdd": ["CAP_NET_ADMIN"]},
    "capabilities kept": {"CapDrop": []},
    "no AppArmor": {"SecurityOpt": ["no-new-privileges", "apparmor=unconfined"]},
    "no SELinux": {"SecurityOpt": ["no-new-privileges", "label=disable"]},
    "no system call filter beside capabilities": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
    "all system paths": {"SecurityOpt": ["no-new-privileges", "systempaths=unconfined"]},
    "new privileges": {"SecurityOpt": []},
    "a control group of its own": {"CgroupParent": "/"},
    "a kernel setting": {"Sysctls": {"kernel.core_pattern": "|/x"}},
    "another log": {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "tcp://10.0.0.1:514"}}},
    "a log without bound": {"LogConfig": {"Type": "json-file", "Config": {}}},
    "a published port": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
    "all ports": {"PublishAllPorts": True},
    "starting with the machine": {"RestartPolicy": {"Name": "always"}},
    "any number of processes": {"PidsLimit": 0},
    "any number of processes, said": {"PidsLimit": -1},
    "more groups": {"GroupAdd": ["docker"]},
    "other annotations": {"Annotations": {"run.oci.handler": "x"}},
    "a driver's options": {"StorageOpt": {"dm.basesize": "1"}},
    "never killed": {"OomScoreAdj": -1000},
    "never out of memory": {"OomKillDisable": True},
    "links": {"Links": ["knoll-redis-1:redis"]},
    "hosts": {"ExtraHosts": ["a:1.2.3.4"]},
    "a file with its id": {"ContainerIDFile": "/x"},
}  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_container_is_created_with(name: str) -> None:
    body = copy.deepcopy(APP)
    body["HostConfig"] |= FORBIDDEN[name]
    with pytest.raises(RefusedError, match=r"^container\.HostConfig"):
        create(body)


def test_what_no_setting_can_unmask_stays_masked() -> None:
    body = copy.deepcopy(APP)
    body["HostConfig"] |= {"MaskedPaths": [], "ReadonlyPaths": [], "Runtime": "other"}
    assert not {"MaskedPaths", "ReadonlyPaths", "Runtime"} & create(body)[0]["HostConfig"].keys()


@pytest.mark.parametrize("labels", [{}, {"knoll.dev/platform": "other"}, None, [], "x"])
def test_every_container_has_the_label_of_its_platform(labels: Any) -> None:
    with pytest.raises(RefusedError, match=r"container\.Labels"):
        create({**APP, "Labels": labels})


@pytest.mark.parametrize("missing", ["Labels", "HostConfig", "Image"])
def test_nothing_is_left_to_the_engines_defaults(missing: str) -> None:
    with pytest.raises(RefusedError):
        create({key: value for key, value in APP.items() if key != missing})


def test_repeated_names_cannot_hide_one_another() -> None:
    text = json.dumps(APP)[:-1] + ', "hostconfig": {"Privileged": true}}'
    with pytest.raises(RefusedError, match="hostconfig"):
        rewritten(POLICY, judge(POLICY, "POST", "/containers/create").call, text.encode())
    text = '{"HostConfig": {"Privileged": true}, ' + json.dumps(APP)[1:]
    data, _ = rewritten(POLICY, judge(POLICY, "POST", "/containers/create").call, text.encode())
    assert b"Privileged" not in data, "what is sent is what was checked"


def test_joining_is_only_by_containers_that_are_looked_up() -> None:
    body = copy.deepcopy(APP)
    body["HostConfig"] |= {"NetworkMode": "container:knoll-api-1", "IpcMode": "container:knoll-redis-1"}
    assert set(create(body)[1]) == {"knoll-api-1", "knoll-redis-1"}


REFUSED_CALLS = [
    ("POST", "/containers/x/attach"), ("POST", "/containers/x/update"), ("POST", "/containers/prune"),
    ("GET", "/containers/x/export"), ("POST", "/commit?container=x"), ("GET", "/containers/json"),
    ("GET", "/containers/json?all=1"), ("GET", '/containers/json?filters={"label":["other=1"]}'),
    ("GET", '/containers/json?filters={"label":["knoll.dev/platform=knoll2"]}'),
    ("GET", f"/containers/json?{OURS}&filters={{}}"), ("GET", "/volumes"), ("GET", "/networks"), ("GET", "/events"),
    ("POST", "/build"), ("POST", "/images/load"), ("DELETE", "/images/redis:8"), ("POST", "/images/x/tag?repo=redis"),
    ("POST", "/images/create?fromSrc=http://evil/x.tar&repo=x"), ("POST", "/images/create?fromSrc=-&repo=redis"),
    ("POST", "/swarm/init"), ("GET", "/swarm"), ("POST", "/services/create"), ("GET", "/secrets"), ("GET", "/configs"),
    ("POST", "/plugins/pull"), ("GET", "/plugins"), ("POST", "/auth"), ("GET", "/system/df"), ("POST", "/grpc"),
    ("POST", "/session"), ("POST", "/volumes/prune"), ("POST", "/networks/x/connect"), ("GET", "/nodes"),
    ("GET", "/debug/pprof/"), ("GET", "//containers/json"), ("GET", "/containers/../info"), ("GET", "/x"),
    ("GET", "/containers/%2e%2e/json"), ("GET", "/containers/./json"), ("GET", "/containers/a%2Fb/json"),
    ("GET", "/containers/a%252Fb/json"), ("PRI", "*"), ("CONNECT", "/info"), ("get", "/info"), ("OPTIONS", "/info"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target"), REFUSED_CALLS)
def test_the_autoscaler_may_not_call(method: str, target: str) -> None:
    with pytest.raises(RefusedError):
        judge(POLICY, method, target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/containers/create"), ("GET", f"/containers/json?{OURS}"), ("POST", f"/containers/{ID}/exec"),
        ("GET", f"/volumes?{OURS}"), ("POST", "/volumes/create"), ("POST", "/swarm/init"), ("POST", "/plugins/pull"),
        ("POST", "/build"),
    ],
)  # fmt: skip
def test_the_builder_may_not_call(method: str, target: str) -> None:
    with pytest.raises(RefusedError):
        judge(FOR_BUILDER, method, target)


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("GET", "/v1.47/version", PathTarget.NONE), ("GET", f"/containers/json?all=1&{OURS}", PathTarget.NONE),
        ("POST", f"/v1.41/containers/{ID}/start", PathTarget.CONTAINER),
        ("DELETE", f"/containers/{ID}?force=1&v=1", PathTarget.CONTAINER),
        ("GET", f"/containers/{ID}/logs?stdout=1", PathTarget.CONTAINER), ("POST", "/exec/abc/start", PathTarget.EXEC),
        ("GET", "/images/registry.example:5000/team/app@sha256:abc/json", PathTarget.NONE),
        ("POST", "/images/create?fromImage=redis&tag=8", PathTarget.NONE),
        ("POST", "/images/create?fromSrc=-&repo=knoll/pause&tag=3", PathTarget.NONE),
        ("GET", "/system/df?type=volume", PathTarget.NONE), ("DELETE", "/volumes/knoll.x", PathTarget.VOLUME),
    ],
)  # fmt: skip
def test_what_is_needed_passes(method: str, target: str, kind: PathTarget) -> None:
    assert judge(POLICY, method, target).call.target is kind


@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]))
def test_any_text_is_judged_and_never_an_error_of_ours(text: str, method: str) -> None:
    for policy in (POLICY, FOR_BUILDER):
        try:
            call = judge(policy, method, text).call
        except RefusedError:
            continue
        assert call in CALLS
        assert policy.role in call.roles


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6,
)  # fmt: skip
FIELDS = ["Privileged", "PidMode", "Binds", "Mounts", "CapAdd", "SecurityOpt", "Devices", "NetworkMode", "PidsLimit",
          "LogConfig", "RestartPolicy", "Annotations", "StorageOpt", "CapDrop", "IpcMode", "UsernsMode"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_any_body_is_refused_or_reduced_to_harmless_fields(more: dict[str, Any]) -> None:
    body = copy.deepcopy(APP)
    body["HostConfig"] |= more
    try:
        host = create(body)[0]["HostConfig"]
    except RefusedError:
        return
    assert not {"Privileged", "PidMode", "Binds", "Devices", "UsernsMode"} & host.keys()
    assert host["NetworkMode"] in ("none", "knoll-instances") or host["NetworkMode"].startswith("container:")
    assert "ALL" in host["CapDrop"]
    assert all(mount["Source"].startswith("knoll.") and mount["Type"] == "volume" for mount in host["Mounts"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/volumes/create", {"Name": "knoll.x", "Labels": LABELS, "DriverOpts": {"o": "bind", "device": "/"}}),
        ("/volumes/create", {"Name": "knoll_redis", "Labels": LABELS}),
        ("/volumes/create", {"Labels": LABELS}),
        ("/volumes/create", {"Name": "knoll.x", "Labels": LABELS, "Driver": "evil"}),
        ("/networks/create", {"Name": "knoll-instances", "Driver": "macvlan", "Labels": LABELS}),
        ("/networks/create", {"Name": "other", "Driver": "bridge", "Labels": LABELS}),
        (f"/containers/{ID}/exec", {"Cmd": ["x"], "Privileged": True}),
        (f"/containers/{ID}/exec", {"Cmd": ["x"], "User": "root"}),
        ("/containers/create", []), ("/containers/create", "x"), ("/volumes/create", None),
    ],
)  # fmt: skip
def test_other_bodies_are_as_strict(path: str, body: Any) -> None:
    with pytest.raises(RefusedError):
        rewritten(POLICY, judge(POLICY, "POST", path).call, json.dumps(body).encode())


def test_the_network_of_the_platform_is_made() -> None:
    body = payloads.network("knoll-instances", "knoll")
    data, _ = rewritten(POLICY, judge(POLICY, "POST", "/networks/create").call, json.dumps(body).encode())
    assert json.loads(data) == body


def test_whose_something_is_its_label_says() -> None:
    assert is_ours(POLICY, PathTarget.CONTAINER, {"Config": {"Labels": LABELS}})
    assert is_ours(POLICY, PathTarget.NETWORK, {"Labels": LABELS})
    others: tuple[dict[str, Any], ...] = (
        {}, {"Config": {}}, {"Labels": LABELS}, {"Config": {"Labels": {"knoll.dev/platform": "other"}}}
    )  # fmt: skip
    for description in others:
        assert not is_ours(POLICY, PathTarget.CONTAINER, description)
