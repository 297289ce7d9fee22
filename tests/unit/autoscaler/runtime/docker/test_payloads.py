"""The requests that create objects on the engine."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker import labels, payloads
from autoscaler.runtime.model import ContainerSpec, InstanceSpec, Mount, Resources

ONE = ContainerSpec("user-container", "hello:1")
SPEC = InstanceSpec("hello-1", "default/hello", "uid-1", (ONE,), 8080)


def made(
    container: ContainerSpec = ONE, spec: InstanceSpec = SPEC, image_has_tmp: bool = True, image_user: str = ""
) -> dict[str, Any]:
    return payloads.container(
        spec,
        container,
        platform="knoll",
        role="app",
        sandbox_id="abc",
        group="g",
        address="10.0.0.2",
        image_id="sha256:1",
        image_has_tmp=image_has_tmp,
        now=12.5,
        image_user=image_user,
    )


@pytest.mark.parametrize(
    ("cores", "shares"), [(0.001, 2), (0.002, 2), (0.003, 3), (0.1, 102), (0.25, 256), (1.0, 1024), (2.5, 2560)]
)
def test_shares_follow_kubernetes_formula(cores: float, shares: int) -> None:
    assert payloads.cpu_shares(cores) == shares


@given(st.floats(0.001, 512))
def test_more_cores_never_get_fewer_shares(cores: float) -> None:
    assert 2 <= payloads.cpu_shares(cores) <= payloads.cpu_shares(cores + 0.01)


@pytest.mark.parametrize(
    ("command", "args", "entrypoint", "cmd"),
    [
        pytest.param((), (), None, None, id="the image's own"),
        pytest.param((), ("a",), None, ["a"], id="args replace the image's command"),
        pytest.param(("/c",), (), ["/c"], [], id="a command drops the image's command too"),
        pytest.param(("/c",), ("a",), ["/c"], ["a"], id="both"),
    ],
)
def test_command_and_args_have_kubernetes_meaning(
    command: tuple[str, ...], args: tuple[str, ...], entrypoint: list[str] | None, cmd: list[str] | None
) -> None:
    body = made(replace(ONE, command=command, args=args))
    assert (body.get("Entrypoint"), body.get("Cmd")) == (entrypoint, cmd)


def test_a_container_joins_its_sandbox_and_gets_no_swap() -> None:
    host = made(replace(ONE, resources=Resources(memory_limit=1 << 27)))["HostConfig"]
    assert (host["NetworkMode"], host["IpcMode"]) == ("container:abc", "container:abc")
    assert host["Memory"] == host["MemorySwap"] == 1 << 27


def test_a_limit_alone_is_the_request_too() -> None:
    host = made(replace(ONE, resources=Resources(cpu_limit=0.5)))["HostConfig"]
    assert (host["CpuShares"], host["CpuQuota"]) == (512, 50_000)


def test_no_resources_ask_for_nothing() -> None:
    assert not {"CpuShares", "CpuQuota", "Memory", "MemorySwap", "MemoryReservation"} & set(made()["HostConfig"])


@pytest.mark.parametrize(
    ("mounts", "has_tmp", "tmpfs"),
    [
        ((), True, set()),
        ((), False, {"/tmp"}),
        ((Mount("/tmp/", "bind", "/x"),), False, set()),
        ((Mount("/tmp", "tmpfs", size_bytes=5),), False, {"/tmp"}),
    ],
)
def test_tmp_is_mounted_once(mounts: tuple[Mount, ...], has_tmp: bool, tmpfs: set[str]) -> None:
    assert set(made(replace(ONE, mounts=mounts), image_has_tmp=has_tmp)["HostConfig"]["Tmpfs"]) == tmpfs


@pytest.mark.parametrize(
    ("user", "group", "written"), [(None, None, None), (5, None, "5:0"), (5, 6, "5:6"), (0, None, "0:0")]
)
def test_a_user_without_group_gets_group_zero(user: int | None, group: int | None, written: str | None) -> None:
    assert made(replace(ONE, user=user, group=group)).get("User") == written


@pytest.mark.parametrize(("image_user", "written"), [("", "0:6"), ("65532:65532", "65532:6"), ("nonroot", "nonroot:6")])
def test_a_group_without_user_leaves_the_images_user(image_user: str, written: str) -> None:
    assert made(replace(ONE, group=6), image_user=image_user)["User"] == written


def test_further_groups_are_given() -> None:
    assert made(replace(ONE, groups=(7, 8)))["HostConfig"]["GroupAdd"] == ["7", "8"]


def test_labels_of_the_spec_cannot_replace_ours() -> None:
    container_labels = made(spec=replace(SPEC, labels={labels.PLATFORM: "other", "a/b": "c"}))["Labels"]
    assert (container_labels[labels.PLATFORM], container_labels["a/b"]) == ("knoll", "c")


def test_only_the_spec_overrides_the_defaults_of_the_platform() -> None:
    assert made(replace(ONE, env={"HOSTNAME": "mine"}))["Env"] == ["HOSTNAME=mine"]


def test_a_recreated_container_leaves_out_what_it_inherited() -> None:
    inspected = {
        "Image": "sha256:1",
        "Config": {**made(), "Hostname": "x", "Domainname": "", "ExposedPorts": {"80/tcp": {}}, "Image": "hello:1"},
        "HostConfig": made()["HostConfig"],
    }
    body = payloads.recreate(inspected, restarts=3, now=99.0)
    assert not {"Hostname", "Domainname", "ExposedPorts"} & set(body)
    assert body["Image"] == "sha256:1"
    assert (body["Labels"][labels.RESTARTS], body["Labels"][labels.STARTED]) == ("3", "99.0")
    assert body["Labels"][labels.CREATED] == "12.5"
    assert body["HostConfig"] == inspected["HostConfig"]


def test_a_sandbox_uses_the_dns_server_of_the_platform_and_its_search_domains() -> None:
    body = payloads.sandbox("knoll", "net", "pause", "host", "g", "10.201.0.3")
    config = body["HostConfig"]
    assert (config["Dns"], config["DnsSearch"]) == (["10.201.0.3"], ["svc.cluster.local"])
    assert config["DnsOptions"] == ["ndots:2"]
    assert body["Labels"][labels.DNS] == "10.201.0.3"


def test_without_a_dns_server_the_sandbox_uses_that_of_the_engine() -> None:
    body = payloads.sandbox("knoll", "net", "pause", "host", "g")
    assert not {"Dns", "DnsSearch", "DnsOptions"} & set(body["HostConfig"])


@pytest.mark.parametrize(
    ("user", "image_user", "message"),
    [
        (0, "65532", "runAsUser (0) breaks non-root policy"),
        (1000, "", ""),
        (None, "", "image will run as root"),
        (None, "0:0", "image will run as root"),
        (None, "65532:65532", ""),
        (None, "nonroot", "non-numeric user (nonroot)"),
    ],
)
def test_a_container_that_must_not_be_root_is_refused_when_it_would_be(
    user: int | None, image_user: str, message: str
) -> None:
    container = ContainerSpec("app", "image", user=user, non_root=True)
    refusal = payloads.refusal(container, image_user, (1, 45))
    assert message in refusal if message else not refusal
    assert not payloads.refusal(replace(container, non_root=False), image_user, (1, 45))


def test_a_part_of_a_volume_is_refused_where_the_engine_would_mount_all_of_it() -> None:
    container = ContainerSpec("app", "image", mounts=(Mount("/a", "own", "files.x.v", sub_path="a"),))
    assert "Docker 26" in payloads.refusal(container, "", (1, 44))
    assert not payloads.refusal(container, "", (1, 45))
    assert not payloads.refusal(replace(container, mounts=(Mount("/a", "own", "files.x.v"),)), "", (1, 44))


def test_an_own_volume_is_mounted_by_the_platforms_name_for_it_and_hides_what_the_image_has() -> None:
    mounts = (Mount("/a", "own", "files.x.v", read_only=True), Mount("/b", "own", "files.x.v", sub_path="k"))
    mounted = made(ContainerSpec("app", "image", mounts=mounts))["HostConfig"]["Mounts"]
    common = {"Type": "volume", "Source": "knoll.files.x.v"}
    assert mounted == [
        {**common, "Target": "/a", "ReadOnly": True, "VolumeOptions": {"NoCopy": True}},
        {**common, "Target": "/b", "ReadOnly": False, "VolumeOptions": {"NoCopy": True, "Subpath": "k"}},
    ]


def test_a_quota_is_a_little_above_the_limit() -> None:
    assert payloads.quota(1024**3) == {"StorageOpt": {"size": str(1024**3 + 1024**3 // 10)}}
    assert payloads.quota(0) == {"StorageOpt": {"size": str(16 * 1024**2)}}
