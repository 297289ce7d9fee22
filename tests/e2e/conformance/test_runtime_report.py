"""The runtime contract as an app sees it: its process, files, limits and variables."""

import ipaddress
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from tests.e2e.conformance.conftest import RUNTIME_IMAGE, Namespace, service
from tests.e2e.platform import http

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

V1 = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
LIMITED = {"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "125m", "memory": "128Mi"}}
PROBE = {"httpGet": {"path": "/probed"}, "periodSeconds": 1}
SMALL = {"limits": {"memory": "64Mi"}}
PAIR = [
    {"image": RUNTIME_IMAGE, "name": "main", "ports": [{"containerPort": 8080}], "resources": LIMITED},
    {"image": RUNTIME_IMAGE, "name": "beside", "resources": SMALL},
]
BARE = """
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata: {name: bare}
spec: {template: {spec: {containers: [{image: IMAGE}]}}}
---
apiVersion: serving.knative.dev/v1
kind: Route
metadata: {name: bare}
spec: {traffic: [{configurationName: bare, percent: 100}]}
"""
SERVICES = [
    service("plain", resources=LIMITED, readinessProbe=PROBE),
    service("dressed", command=["/program", "first"], args=["$(GREETING)", "two words", "$$(GREETING)"],
            ports=[{"containerPort": 8801}], env=[{"name": "GREETING", "value": "hello"}], workingDir="/tmp"),
    service("argued", args=["only", "these"]),
    service("commanded", command=["/program"]),
    service("another-user", securityContext={"runAsUser": 2020}, workingDir="/"),
    service("h2", ports=[{"name": "h2c", "containerPort": 8080}]),
    service("paired", spec={"containers": PAIR}),
    service("h1", ports=[{"name": "http1", "containerPort": 8080}]),
]  # fmt: skip


@pytest.fixture(scope="module")
def here(make_namespace: Callable[[str], AbstractContextManager[Namespace]]) -> Iterator[Namespace]:
    """All Services of this module, deployed at once."""
    with make_namespace("runtime-report") as namespace:
        namespace.kubectl("apply", "-f", "-", stdin=BARE.replace("IMAGE", RUNTIME_IMAGE))
        namespace.apply(*SERVICES)
        yield namespace


@pytest.fixture(scope="module")
def plain(here: Namespace) -> Any:
    return here.report("plain")


def readable(cgroups: Any) -> dict[str, str]:
    return {path: file["value"] for path, file in cgroups.items() if not file["error"]}


def test_limits_and_requests_are_seen_in_the_cgroup(plain: Any) -> None:
    """TestMustHaveCgroupConfigured. Memory and swap together are bounded as memory alone is."""
    seen = readable(plain["cgroups"])
    if V1 in seen:
        assert seen[V1] == "134217728"
        assert seen.get("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "134217728") == "134217728"
        assert seen["/sys/fs/cgroup/cpu/cpu.shares"] == "128"
        quota, period = (int(seen[f"/sys/fs/cgroup/cpu/cpu.cfs_{field}_us"]) for field in ("quota", "period"))
    else:
        assert seen["/sys/fs/cgroup/memory.max"] == "134217728"
        assert seen.get("/sys/fs/cgroup/memory.swap.max", "0") == "0"
        quota, period = map(int, seen["/sys/fs/cgroup/cpu.max"].split())
        assert 1 <= int(seen["/sys/fs/cgroup/cpu.weight"]) < 100
    assert quota == period


def test_an_app_cannot_change_its_cgroup(plain: Any) -> None:
    """TestShouldHaveCgroupReadOnly."""
    there = readable(plain["cgroups"])
    assert len(there) >= 3
    assert all(plain["cgroups"][path]["writeError"] for path in there), plain["cgroups"]


def test_command_and_args_replace_those_of_the_image(here: Namespace) -> None:
    """TestCmdArgs. Variables in them are filled in; args alone replace CMD, a command alone drops it."""
    assert here.report("dressed")["args"] == ["/program", "first", "hello", "two words", "$(GREETING)"]
    assert here.report("argued")["args"] == ["/program", "only", "these"]
    assert here.report("commanded")["args"] == ["/program"]
    assert here.report("plain")["args"] == ["/program", "of", "the image"]


def test_an_app_gets_its_service_configuration_and_revision(plain: Any) -> None:
    """TestShouldEnvVars."""
    variables = {name: plain["env"][name] for name in ("K_SERVICE", "K_CONFIGURATION", "K_REVISION")}
    assert variables == {"K_SERVICE": "plain", "K_CONFIGURATION": "plain", "K_REVISION": "plain-00001"}


def test_the_port_of_the_container_is_in_port(here: Namespace, plain: Any) -> None:
    """TestMustEnvVars."""
    assert here.report("dressed")["env"]["PORT"] == "8801"
    assert plain["env"]["PORT"] == "8080"


def test_the_first_read_from_stdin_finds_its_end(plain: Any) -> None:
    """TestShouldHaveStdinEOF."""
    assert plain["stdin"] == "EOF"


MUST_BE = [f"/dev/{name}" for name in
           ("fd", "full", "null", "ptmx", "random", "stdin", "stdout", "stderr", "tty", "urandom", "zero")]  # fmt: skip


def test_the_standard_files_exist_and_tmp_is_writable_also_on_an_empty_image(here: Namespace, plain: Any) -> None:
    """TestMustHaveFiles."""
    files = plain["files"]
    for path in [*MUST_BE, "/proc/self/fd", *(f"/proc/self/fd/{number}" for number in range(3)), "/tmp"]:
        assert not files[path]["error"], path
    links = {path: files[path]["target"] for path in ("/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr")}
    assert links == {"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
                     "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"}  # fmt: skip
    for name in ("plain", "another-user"):
        report = here.report(name)["files"]["/tmp"]
        assert report["writable"]
        assert report["mode"] == "dtrwxrwxrwx"


def test_resolv_conf_is_readable_and_there_is_no_console(plain: Any) -> None:
    """TestShouldHaveFiles."""
    assert re.fullmatch(r"-rw.r..r..", plain["files"]["/etc/resolv.conf"]["mode"])
    assert "no such file" in plain["files"]["/dev/console"]["error"]
    assert "no such file" in plain["files"]["/dev/log"]["error"]


def test_the_kernels_settings_cannot_be_changed(plain: Any) -> None:
    """TestShouldHaveSysctlReadOnly."""
    proc_sys_mounts = [mount for mount in plain["mounts"] if mount["path"] == "/proc/sys"]
    assert all(mount["type"] == "proc" and "ro" in mount["options"] for mount in proc_sys_mounts), proc_sys_mounts
    assert proc_sys_mounts, "Docker mounts it by itself"


def test_run_as_user_is_the_user_that_an_app_runs_as(here: Namespace) -> None:
    """TestMustRunAsUser."""
    report = here.report("another-user")
    assert (report["uid"], report["euid"], report["cwd"]) == (2020, 2020, "/")


def test_without_run_as_user_an_app_runs_as_the_images_user(plain: Any) -> None:
    """TestShouldRunAsUserContainerDefault."""
    assert (plain["uid"], plain["euid"]) == (65532, 65532)


def test_an_app_starts_in_its_working_dir(here: Namespace) -> None:
    """TestWorkingDirService."""
    assert here.report("dressed")["cwd"] == "/tmp"


@pytest.mark.parametrize(("name", "protocol"), [("h2", "HTTP/2.0"), ("h1", "HTTP/1.1"), ("plain", "HTTP/1.1")])
def test_the_name_of_the_port_selects_the_protocol(here: Namespace, name: str, protocol: str) -> None:
    """TestProtocols."""
    assert here.report(name)["request"]["proto"] == protocol


FORWARDED = re.compile(
    r'(for|by|host|proto)=("[^"]+"|[\w.\-]+)(;(for|by|host|proto)=("[^"]+"|[\w.\-]+))*'
    r'(,\s*(for|by|host|proto)=("[^"]+"|[\w.\-]+)(;(for|by|host|proto)=("[^"]+"|[\w.\-]+))*)*',
    re.I,
)


@pytest.mark.parametrize("name", ["plain", "h2"])
def test_the_host_and_a_forwarded_header_arrive(here: Namespace, name: str) -> None:
    """TestMustHaveHeadersSet."""
    request = here.report(name)["request"]
    assert request["host"] == here.host(name)
    (forwarded,) = request["headers"]["Forwarded"]
    assert FORWARDED.fullmatch(forwarded), forwarded
    assert f"host={here.host(name)}" in forwarded.replace('"', "")


@pytest.mark.parametrize("name", ["plain", "h2"])
def test_headers_of_the_caller_and_where_it_came_from_arrive(here: Namespace, name: str) -> None:
    """TestShouldHaveHeadersSet."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    seen = here.report(name, **{"X-Mine": "hello", "Traceparent": trace, "X-Forwarded-For": "10.1.2.3"})["request"]
    assert seen["headers"]["X-Mine"] == ["hello"]
    assert seen["headers"]["Traceparent"] == [trace]
    assert seen["headers"]["X-Forwarded-Proto"] == ["http"]
    # The caller is no proxy that config-network trusts: its own word of where the request came from is not passed on.
    (caller,) = (ipaddress.ip_address(node) for node in seen["headers"]["X-Forwarded-For"])
    assert caller.is_loopback or caller.is_private
    assert str(caller) != "10.1.2.3"


def test_forwarding_headers_of_a_caller_are_overwritten(here: Namespace) -> None:
    lies = {"Forwarded": "for=192.0.2.60;proto=https", "X-Real-IP": "192.0.2.60", "X-Forwarded-Proto": "https"}
    seen = here.report("plain", **lies)["request"]["headers"]
    assert "192.0.2.60" not in str(seen)
    assert "proto=http" in seen["Forwarded"][0].split(";")
    assert seen["X-Forwarded-Proto"] == ["http"]


INTERNAL = (
    "K-Proxy-Request", "K-Original-Host", "K-Network-Probe", "K-Network-Hash", "K-Passthrough-Lb",
    "Knative-Serving-Default-Route", "Knative-Serving-Tag", "Knative-Serving-Revision", "Knative-Serving-Namespace",
    "Proxy",
)  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "h2"])
def test_internal_headers_from_outside_do_not_arrive_and_do_not_steer(here: Namespace, name: str) -> None:
    seen = here.report(name, **dict.fromkeys(INTERNAL, "activator"))["request"]["headers"]
    assert not set(INTERNAL) & set(seen)


@pytest.mark.parametrize("variable", ["K_SERVICE", "K_CONFIGURATION", "K_REVISION", "PORT"])
def test_the_contracts_variables_cannot_be_overridden(here: Namespace, variable: str) -> None:
    refused = service("refused", env=[{"name": variable, "value": "mine"}])
    answer = create(here, refused)
    assert answer.status_code == 400, answer.text
    assert variable in answer.text


def test_readiness_probes_have_the_user_agent_of_kube_probes(plain: Any) -> None:
    (probe,) = plain["probes"]
    (agent,) = probe["headers"]["User-Agent"]
    assert re.fullmatch(r"kube-probe/\d+\.\d+", agent)


def test_hosts_and_hostname_exist(here: Namespace, plain: Any) -> None:
    assert not plain["files"]["/etc/hosts"]["error"]
    assert plain["hostname"]
    assert plain["env"]["HOSTNAME"] == here.pod("plain")["metadata"]["name"]


def test_what_an_app_writes_to_stdout_and_stderr_is_collected(here: Namespace) -> None:
    output = here.kubectl("logs", here.pod("plain")["metadata"]["name"], "-c", "user-container").stdout
    assert {"out: started", "err: started"} <= set(output.splitlines())


LABEL = ("-l", "serving.knative.dev/service=unasked")


def test_an_instance_is_started_at_deployment_before_any_request(here: Namespace) -> None:
    here.apply(service("unasked", annotations={"autoscaling.knative.dev/min-scale": "0"}))
    conditions = {
        condition["type"]: condition["status"]
        for condition in here.listed("revision", *LABEL)[0]["status"]["conditions"]
    }
    assert conditions["ContainerHealthy"] == "True"
    here.delete("unasked")


def create(here: Namespace, body: dict[str, Any]) -> httpx.Response:
    """POST as a client does that checks nothing itself, and does not want unknown fields refused."""
    path = f"{here.platform.api}/apis/serving.knative.dev/v1/namespaces/{here.name}/services"
    return httpx.post(path, json=body, params={"fieldValidation": "Ignore", "dryRun": "All"})


@pytest.mark.parametrize(
    ("container", "spec"),
    [
        ({"ports": [{"name": "odd", "containerPort": 8080}]}, {}),
        ({"volumeMounts": [{"name": "unknown", "mountPath": "/v", "mountPropagation": "Bidirectional"}]}, {}),
    ],
    ids=["odd port name", "mount propagation of an unknown volume"],
)
def test_what_the_contract_forbids_is_refused(here: Namespace, container: Any, spec: Any) -> None:
    """TestMustNotContainerConstraints."""
    answer = create(here, service("refused", spec=spec, **container))
    assert answer.status_code == 400, answer.text


EXEC = {"exec": {"command": ["/program"]}}


@pytest.mark.parametrize(
    ("container", "field"),
    [
        ({"lifecycle": {"postStart": EXEC}}, "lifecycle"),
        ({"lifecycle": {"preStop": EXEC}}, "lifecycle"),
        ({"ports": [{"containerPort": 8080, "hostPort": 80}]}, "hostPort"),
        ({"stdin": True}, "stdin"),
        ({"stdinOnce": True}, "stdinOnce"),
        ({"tty": True}, "tty"),
    ],
    ids=["postStart", "preStop", "hostPort", "stdin", "stdinOnce", "tty"],
)
def test_what_an_app_should_not_have_is_refused_or_left_out(here: Namespace, container: Any, field: str) -> None:
    """TestShouldNotContainerConstraints, the six that may be left out."""
    answer = create(here, service("refused", **container))
    if answer.status_code == 201:
        (kept,) = answer.json()["spec"]["template"]["spec"]["containers"]
        assert field not in str(kept)
    else:
        assert answer.status_code == 400
        assert field in answer.text


@pytest.mark.parametrize(
    "container",
    [
        {"ports": [{"containerPort": 8080}, {"containerPort": 8081, "name": "h2c"}]},
        {"securityContext": {"runAsUser": -10}},
    ],
    ids=["two ports", "a user below zero"],
)
def test_two_ports_and_users_below_zero_are_refused(here: Namespace, container: Any) -> None:
    """TestShouldNotContainerConstraints, the two that must be refused."""
    assert create(here, service("refused", **container)).status_code == 400


@pytest.mark.parametrize("path", ["/dev/log", "/dev", "/", "/tmp"])
def test_a_volume_over_dev_or_root_is_refused_and_one_over_tmp_is_not(here: Namespace, path: str) -> None:
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    refused = service("refused", spec=volume, volumeMounts=[{"name": "v", "mountPath": path}])
    assert create(here, refused).status_code == (201 if path == "/tmp" else 400)


def test_connections_are_kept_and_each_request_keeps_its_own_host(here: Namespace) -> None:
    with http(here.platform) as client:
        for name in ("plain", "h1", "plain"):
            answer = client.get("/", headers={"Host": here.host(name)})
            assert answer.json()["env"]["K_SERVICE"] == name


def test_without_a_service_its_name_is_empty(here: Namespace) -> None:
    here.kubectl("wait", "route/bare", "--for=condition=Ready", "--timeout=60s")
    env = here.report("bare")["env"]
    variables = {name: env[name] for name in ("K_SERVICE", "K_CONFIGURATION", "K_REVISION")}
    assert variables == {"K_SERVICE": "", "K_CONFIGURATION": "bare", "K_REVISION": "bare-00001"}


def test_containers_of_an_instance_share_localhost_and_have_limits_of_their_own(here: Namespace) -> None:
    main = here.report("paired")
    beside = here.ask("paired", "/beside").json()
    assert (main["env"]["PORT"], beside["env"].get("PORT")) == ("8080", None)
    assert main["env"]["K_REVISION"] == beside["env"]["K_REVISION"] == "paired-00001"
    assert (memory(main["cgroups"]), memory(beside["cgroups"])) == ("134217728", "67108864")


def memory(cgroups: Any) -> str:
    seen = readable(cgroups)
    return seen.get(V1) or seen["/sys/fs/cgroup/memory.max"]


def test_a_user_without_an_entry_in_the_image_has_group_0(here: Namespace) -> None:
    assert here.report("another-user")["gid"] == 0


@pytest.mark.parametrize("name", ["plain", "h2"])
def test_the_gateway_supports_http_2_without_tls(here: Namespace, name: str) -> None:
    with httpx.Client(http1=False, http2=True, base_url=here.platform.gateway, timeout=60) as client:
        answer = client.get("/", headers={"Host": here.host(name)})
    assert answer.http_version == "HTTP/2"
    assert answer.json()["request"]["host"] == here.host(name)


def test_an_instance_has_no_terminal(here: Namespace) -> None:
    command = ["docker", "inspect", "--format={{.Config.Tty}} {{.Config.OpenStdin}}", *here.platform.containers()]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(output) == {"false false"}
