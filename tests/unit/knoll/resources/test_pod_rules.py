"""What a Revision's containers may not be, in the words that users of Knative know."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given

from knoll.config.features import FeaturesConfig
from knoll.config.platform import PlatformConfig
from knoll.resources.meta import ObjectMeta
from knoll.resources.names import dns_1123_problems
from knoll.resources.parsing import parse
from knoll.resources.pod_defaults import defaulted_spec
from knoll.resources.problems import merged
from knoll.resources.revision import RevisionSpec
from knoll.resources.revision_rules import spec_problems
from tests.strategies import Json, pod_specs

CONFIG = PlatformConfig()
C = "spec.containers[0]"


def _problems(spec: Json, config: PlatformConfig = CONFIG, *, defaults: bool = True) -> list[str]:
    found = parse(RevisionSpec, spec)[0]
    if defaults:
        found = defaulted_spec(found, config, ObjectMeta(name="hello"))
    return [str(problem) for problem in merged(spec_problems(found, config, "spec"))]


def _with(**features: str) -> PlatformConfig:
    return replace(CONFIG, features=replace(FeaturesConfig(), **features))  # type: ignore[arg-type]


def _container(**fields: object) -> Json:
    return {"containers": [{"image": "a", **fields}]}


DNS_LABEL = dns_1123_problems("_")[0]
PORTS = "Name must be empty, or one of: 'h2c', 'http1'"
RELATIVE = "must be a relative path without '..'"

CONTAINERS: list[tuple[str, Json, list[str]]] = [
    ("no containers", {}, ["missing field(s): spec.containers"]),
    ("no image", {"containers": [{"name": "a"}]}, [f"missing field(s): {C}.image"]),
    (
        "an image that is none",
        {"containers": [{"image": "foo:bar:baz"}]},
        [
            f"Failed to parse image reference: {C}.image\nimage: \"foo:bar:baz\", error: 'foo:bar' cannot be part of a "
            "repository's name: lower case letters and digits, with '.', '_' or '-' between them"
        ],
    ),
    ("a reserved name", _container(name="queue-proxy"), [f'"queue-proxy" is a reserved container name: {C}.name']),
    (
        "a name that is none",
        _container(name="Bad_Name"),
        [f"validation callback failed: invalid value: Bad_Name: {C}.name\n{DNS_LABEL}"],
    ),
    ("lifecycle hooks", _container(lifecycle={"preStop": {}}), [f"must not set the field(s): {C}.lifecycle"]),
    ("stdin", _container(stdin=True, stdinOnce=True), [f"must not set the field(s): {C}.stdin, {C}.stdinOnce"]),
    ("tty", _container(tty=True), [f"must not set the field(s): {C}.tty"]),
    ("false is not set", _container(tty=False, stdin=False), []),
    ("volume devices", _container(volumeDevices=[{"name": "a"}]), [f"must not set the field(s): {C}.volumeDevices"]),
    (
        "host port",
        _container(ports=[{"containerPort": 80, "hostPort": 80}]),
        [f"must not set the field(s): {C}.ports.hostPort"],
    ),
    (
        "host ip",
        _container(ports=[{"containerPort": 80, "hostIP": "::"}]),
        [f"must not set the field(s): {C}.ports.hostIP"],
    ),
    (
        "an odd port name",
        _container(ports=[{"containerPort": 80, "name": "foobar"}]),
        [f"Port name foobar is not allowed: {C}.ports\n{PORTS}"],
    ),
    ("h2c", _container(ports=[{"containerPort": 80, "name": "h2c"}]), []),
    ("http1", _container(ports=[{"containerPort": 80, "name": "http1", "protocol": "TCP"}]), []),
    ("UDP", _container(ports=[{"containerPort": 80, "protocol": "UDP"}]), [f"invalid value: UDP: {C}.ports.protocol"]),
    (
        "two ports",
        _container(ports=[{"containerPort": 80}, {"containerPort": 81}]),
        [
            "more than one container port is set: spec.containers[*].ports\n"
            "Only a single port is allowed across all containers"
        ],
    ),
    (
        "a port too high",
        _container(ports=[{"containerPort": 65536}]),
        [f"expected 0 <= 65536 <= 65535: {C}.ports.containerPort"],
    ),
    (
        "a port below zero",
        _container(ports=[{"containerPort": -1}]),
        [f"expected 0 <= -1 <= 65535: {C}.ports.containerPort"],
    ),
    ("a port of zero", _container(ports=[{"containerPort": 0}]), []),
    ("env without name", _container(env=[{"value": "a"}]), [f"missing field(s): {C}.env[0].name"]),
    (
        "env with =",
        _container(env=[{"name": "A=B"}]),
        [f"invalid value: A=B: {C}.env[0].name\na variable's name may not have '=', and nothing a zero byte"],
    ),
    (
        "env twice over",
        _container(env=[{"name": "A", "value": "a", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
        [f"expected exactly one, got both: {C}.env[0].value, {C}.env[0].valueFrom"],
    ),
    (
        "env from nowhere",
        _container(env=[{"name": "A", "valueFrom": {}}]),
        [f"expected exactly one, got neither: {C}.env[0].valueFrom.configMapKeyRef, {C}.env[0].valueFrom.secretKeyRef"],
    ),
    (
        "env from a field",
        _container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        [f"must not set the field(s): {C}.env[0].valueFrom.fieldRef"],
    ),
    (
        "env from a nameless secret",
        _container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {}}}]),
        [f"missing field(s): {C}.env[0].valueFrom.secretKeyRef.key, {C}.env[0].valueFrom.secretKeyRef.name"],
    ),
    (
        "envFrom nothing",
        _container(envFrom=[{"prefix": "A"}]),
        [f"expected exactly one, got neither: {C}.envFrom[0].configMapRef, {C}.envFrom[0].secretRef"],
    ),
    (
        "envFrom both",
        _container(envFrom=[{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}]),
        [f"expected exactly one, got both: {C}.envFrom[0].configMapRef, {C}.envFrom[0].secretRef"],
    ),
    (
        "envFrom without name",
        _container(envFrom=[{"secretRef": {}}]),
        [f"missing field(s): {C}.envFrom[0].secretRef.name"],
    ),
    (
        "resource claims",
        _container(resources={"claims": [{"name": "a"}]}),
        [f"must not set the field(s): {C}.resources.claims"],
    ),
    (
        "negative resources",
        _container(resources={"limits": {"cpu": "-1"}}),
        [f"invalid value: -1: {C}.resources.limits[cpu]\nmust not be negative"],
    ),
    (
        "a request above the limit",
        _container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}),
        [f"invalid value: 1500m: {C}.resources.requests[cpu]\nmust not be above the limit, which is 1"],
    ),
    (
        "a user below zero",
        _container(securityContext={"runAsUser": -10}),
        [f"expected 0 <= -10 <= 2147483647: {C}.securityContext.runAsUser"],
    ),
    (
        "a group too high",
        _container(securityContext={"runAsGroup": 2**31}),
        [f"expected 0 <= 2147483648 <= 2147483647: {C}.securityContext.runAsGroup"],
    ),
    (
        "privileged",
        _container(securityContext={"privileged": True}),
        [f"must not set the field(s): {C}.securityContext.privileged"],
    ),
    (
        "capabilities",
        _container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        [f"must not set the field(s): {C}.securityContext.capabilities.add"],
    ),
    (
        "binding low ports",
        _container(securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}),
        [],
    ),
    (
        "an unknown seccomp profile",
        _container(securityContext={"seccompProfile": {"type": "Mine"}}),
        [f"invalid value: Mine: {C}.securityContext.seccompProfile.type\nRuntimeDefault, Unconfined or Localhost"],
    ),
    (
        "an unknown pull policy",
        _container(imagePullPolicy="Sometimes"),
        [f"invalid value: Sometimes: {C}.imagePullPolicy"],
    ),
    (
        "an unknown message policy",
        _container(terminationMessagePolicy="Not a Policy"),
        [f"invalid value: Not a Policy: {C}.terminationMessagePolicy"],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), [row[1:] for row in CONTAINERS], ids=[row[0] for row in CONTAINERS])
def test_containers(spec: Json, problems: list[str]) -> None:
    assert _problems(spec) == problems


@pytest.mark.parametrize("port", [8008, 8012, 8013, 8022, 9090, 9091])
def test_ports_of_the_platform_are_reserved(port: int) -> None:
    words = f"{port} is a reserved port"
    assert _problems(_container(ports=[{"containerPort": port}])) == [
        f"invalid value: {words}: {C}.ports.containerPort\n{words}, please use a different value"
    ]


@pytest.mark.parametrize("name", ["PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"])
def test_variables_of_the_platform_are_reserved(name: str) -> None:
    assert _problems(_container(env=[{"name": name, "value": "x"}])) == [
        f'"{name}" is a reserved environment variable: {C}.env[0].name'
    ]


POD_FIELDS = {
    "affinity": "pod_spec_affinity",
    "nodeSelector": "pod_spec_node_selector",
    "tolerations": "pod_spec_tolerations",
    "topologySpreadConstraints": "pod_spec_topology_spread_constraints",
    "schedulerName": "pod_spec_scheduler_name",
    "priorityClassName": "pod_spec_priority_class_name",
}


@pytest.mark.parametrize("field", POD_FIELDS)
def test_fields_of_pods_are_refused_until_they_are_turned_on(field: str) -> None:
    spec = {**_container(), field: {"a": "b"}}
    assert _problems(spec) == [f"must not set the field(s): spec.{field}"]
    assert _problems(spec, _with(**{POD_FIELDS[field]: "Enabled"})) == []
    assert _problems(spec, _with(**{POD_FIELDS[field]: "Allowed"})) == []


@pytest.mark.parametrize(
    "field",
    [
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "runtimeClassName",
        "dnsPolicy",
        "dnsConfig",
        "shareProcessNamespace",
        "restartPolicy",
        "terminationGracePeriodSeconds",
        "activeDeadlineSeconds",
        "nodeName",
        "hostname",
        "subdomain",
        "priority",
        "readinessGates",
        "ephemeralContainers",
        "overhead",
        "hostUsers",
        "schedulingGates",
    ],
)
def test_other_fields_of_pods_are_never_taken(field: str) -> None:
    assert _problems({**_container(), field: "x"}) == [f"must not set the field(s): spec.{field}"]


def test_a_service_account_must_be_a_name() -> None:
    assert _problems({**_container(), "serviceAccountName": "foo@bar.baz"}) == [
        "invalid value: foo@bar.baz: spec.serviceAccountName\na lowercase RFC 1123 subdomain must consist of lower "
        "case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
        "'example.com', regex used for validation is "
        r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]


def test_the_token_of_the_account_can_only_be_left_out() -> None:
    assert _problems({**_container(), "automountServiceAccountToken": False}) == []
    found = _problems({**_container(), "automountServiceAccountToken": True})
    assert found == ["must not set the field(s): spec.automountServiceAccountToken"]


POD_SECURITY: list[tuple[object, list[str]]] = [
    ({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "runAsNonRoot": True}, []),
    ({"runAsUser": -1}, ["expected 0 <= -1 <= 2147483647: spec.securityContext.runAsUser"]),
    ({"supplementalGroups": [1, -2]}, ["expected 0 <= -2 <= 2147483647: spec.securityContext.supplementalGroups[1]"]),
    ({"sysctls": [{"name": "a"}]}, ["must not set the field(s): spec.securityContext.sysctls"]),
    ({"seccompProfile": {"type": "RuntimeDefault"}}, []),
]


@pytest.mark.parametrize(("context", "problems"), POD_SECURITY)
def test_the_security_context_of_all_containers(context: object, problems: list[str]) -> None:
    spec = {**_container(), "securityContext": context}
    assert _problems(spec, _with(pod_spec_security_context="Enabled")) == problems
    assert "must not set the field(s): spec.securityContext" in "\n".join(_problems(spec))


TWO: Json = {"containers": [{"image": "a", "ports": [{"containerPort": 8080}]}, {"image": "b"}]}


def _two(**sidecar: object) -> Json:
    spec = copy.deepcopy(TWO)
    spec["containers"][1].update(sidecar)
    return spec


SEVERAL: list[tuple[str, Json, list[str]]] = [
    ("two", TWO, []),
    ("no port", {"containers": [{"image": "a"}, {"image": "b"}]}, ["missing field(s): spec.containers[*].ports"]),
    (
        "a port each",
        _two(ports=[{"containerPort": 81}]),
        [
            "more than one container port is set: spec.containers[*].ports\n"
            "Only a single port is allowed across all containers"
        ],
    ),
    (
        "the same name",
        {"containers": [{"image": "a", "name": "x", "ports": [{"containerPort": 1}]}, {"image": "b", "name": "x"}]},
        ['duplicate container name "x": spec.containers[1].name'],
    ),
    (
        "a probe of a sidecar",
        _two(readinessProbe={"tcpSocket": {}}, livenessProbe={"tcpSocket": {}}),
        ["must not set the field(s): spec.containers[1].livenessProbe, spec.containers[1].readinessProbe"],
    ),
    ("PORT of a sidecar", _two(env=[{"name": "PORT", "value": "1"}]), []),
    (
        "K_SERVICE of a sidecar",
        _two(env=[{"name": "K_SERVICE"}]),
        ['"K_SERVICE" is a reserved environment variable: spec.containers[1].env[0].name'],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), [row[1:] for row in SEVERAL], ids=[row[0] for row in SEVERAL])
def test_several_containers(spec: Json, problems: list[str]) -> None:
    assert _problems(spec) == problems


def test_several_containers_can_be_turned_off() -> None:
    assert _problems(TWO, _with(multi_container="Disabled")) == ["multi-container is off, but found 2 containers: spec"]


def test_probes_of_sidecars_can_be_turned_on() -> None:
    config = _with(multi_container_probing="Enabled")
    assert _problems(_two(readinessProbe={"tcpSocket": {"port": 81}}), config) == []
    assert _problems(_two(readinessProbe={"tcpSocket": {"port": "h"}}), config) == [
        "invalid value: h: spec.containers[1].readinessProbe.tcpSocket.port\nProbe port must match container port"
    ]


INIT: list[tuple[str, Json, list[str]]] = [
    ("plain", {"image": "i", "command": ["a"]}, []),
    (
        "a probe",
        {"image": "i", "readinessProbe": {"tcpSocket": {}}, "startupProbe": {"tcpSocket": {}}},
        [
            "field not allowed in an init container: spec.initContainers[0].readinessProbe, "
            "spec.initContainers[0].startupProbe"
        ],
    ),
    (
        "the name of another",
        {"image": "i", "name": "user-container"},
        ['duplicate container name "user-container": spec.initContainers[0].name'],
    ),
    ("a hook", {"image": "i", "lifecycle": {"x": 1}}, ["must not set the field(s): spec.initContainers[0].lifecycle"]),
    ("PORT", {"image": "i", "env": [{"name": "PORT"}]}, []),
    ("no image", {"name": "i"}, ["missing field(s): spec.initContainers[0].image"]),
]


@pytest.mark.parametrize(("container", "problems"), [row[1:] for row in INIT], ids=[row[0] for row in INIT])
def test_init_containers(container: Json, problems: list[str]) -> None:
    spec = {"containers": [{"image": "a", "name": "user-container"}], "initContainers": [container]}
    assert _problems(spec, _with(pod_spec_init_containers="Enabled")) == problems


def test_init_containers_are_off_by_default() -> None:
    (found,) = _problems({**_container(), "initContainers": [{"image": "i"}]})
    assert found.startswith("pod spec support for init-containers is off, but found 1 init containers: spec\n")


PROBES: list[tuple[str, Json, list[str]]] = [
    ("none of the actions", {"periodSeconds": 1}, []),
    (
        "two actions",
        {"tcpSocket": {}, "httpGet": {}},
        [f"expected exactly one, got both: {C}.readinessProbe.httpGet, {C}.readinessProbe.tcpSocket"],
    ),
    (
        "another port's name",
        {"httpGet": {"port": "imap"}},
        [f"invalid value: imap: {C}.readinessProbe.httpGet.port\nProbe port must match container port"],
    ),
    (
        "a port that is none",
        {"tcpSocket": {"port": 70000}},
        [f"expected 0 <= 70000 <= 65535: {C}.readinessProbe.tcpSocket.port"],
    ),
    ("lower case scheme", {"httpGet": {"scheme": "https"}}, []),
    (
        "a scheme that is none",
        {"httpGet": {"scheme": "ftp"}},
        [f"invalid value: ftp: {C}.readinessProbe.httpGet.scheme\nmust be HTTP or HTTPS"],
    ),
    ("no command", {"exec": {}}, [f"missing field(s): {C}.readinessProbe.exec.command"]),
    (
        "a grace of its own",
        {"tcpSocket": {}, "terminationGracePeriodSeconds": 3},
        [f"must not set the field(s): {C}.readinessProbe.terminationGracePeriodSeconds"],
    ),
    (
        "a threshold without period",
        {"tcpSocket": {}, "failureThreshold": 2},
        [f"failureThreshold is disallowed when periodSeconds is zero: {C}.readinessProbe.failureThreshold"],
    ),
    (
        "a timeout without period",
        {"tcpSocket": {}, "timeoutSeconds": 2},
        [f"timeoutSeconds is disallowed when periodSeconds is zero: {C}.readinessProbe.timeoutSeconds"],
    ),
    (
        "a period below zero",
        {"tcpSocket": {}, "periodSeconds": -1},
        [f"expected 0 <= -1 <= 2147483647: {C}.readinessProbe.periodSeconds"],
    ),
    (
        "a delay below zero",
        {"tcpSocket": {}, "initialDelaySeconds": -1},
        [f"expected 0 <= -1 <= 2147483647: {C}.readinessProbe.initialDelaySeconds"],
    ),
    (
        "successes below one",
        {"tcpSocket": {}, "successThreshold": -1},
        [f"expected 1 <= -1 <= 2147483647: {C}.readinessProbe.successThreshold"],
    ),
    (
        "a timeout below one",
        {"tcpSocket": {}, "periodSeconds": 1, "timeoutSeconds": -1},
        [f"expected 0 <= -1 <= 2147483647: {C}.readinessProbe.timeoutSeconds"],
    ),
]


@pytest.mark.parametrize(("probe", "problems"), [row[1:] for row in PROBES], ids=[row[0] for row in PROBES])
def test_readiness_probes(probe: Json, problems: list[str]) -> None:
    assert _problems(_container(readinessProbe=probe)) == problems


def test_a_probe_may_name_its_own_port() -> None:
    spec = _container(ports=[{"containerPort": 80, "name": "h2c"}], readinessProbe={"tcpSocket": {"port": "h2c"}})
    assert _problems(spec) == []


def test_a_liveness_probe_must_do_something() -> None:
    actions = ", ".join(f"{C}.livenessProbe.{name}" for name in ("exec", "grpc", "httpGet", "tcpSocket"))
    assert _problems(_container(livenessProbe={"periodSeconds": 1})) == [
        f"expected exactly one, got neither: {actions}"
    ]


V = "spec.volumes[0]"
M = f"{C}.volumeMounts[0]"
VOLUMES: list[tuple[str, Json, list[str]]] = [
    ("configMap", {"configMap": {"name": "c"}}, []),
    ("secret", {"secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b", "mode": 0o400}]}}, []),
    ("emptyDir", {"emptyDir": {}}, []),
    (
        "projected",
        {
            "projected": {
                "sources": [
                    {"secret": {"name": "s"}},
                    {"configMap": {"name": "c"}},
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "x"}}]}},
                ]
            }
        },
        [],
    ),
    ("nothing", {}, [f"expected exactly one, got neither: {V}.configMap, {V}.emptyDir, {V}.projected, {V}.secret"]),
    (
        "two kinds",
        {"emptyDir": {}, "configMap": {"name": "c"}},
        [f"expected exactly one, got both: {V}.configMap, {V}.emptyDir"],
    ),
    ("no names", {"secret": {}}, [f"missing field(s): {V}.secret.secretName"]),
    ("no name of a map", {"configMap": {}}, [f"missing field(s): {V}.configMap.name"]),
    (
        "items that say nothing",
        {"configMap": {"name": "c", "items": [{}]}},
        [f"missing field(s): {V}.configMap.items[0].key, {V}.configMap.items[0].path"],
    ),
    (
        "a path out of it",
        {"configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}},
        [f"invalid value: ../x: {V}.configMap.items[0].path\n{RELATIVE}"],
    ),
    (
        "an absolute path",
        {"secret": {"secretName": "c", "items": [{"key": "k", "path": "/x"}]}},
        [f"invalid value: /x: {V}.secret.items[0].path\n{RELATIVE}"],
    ),
    (
        "a mode that is none",
        {"secret": {"secretName": "c", "defaultMode": 0o1000}},
        [f"expected 0 <= 512 <= 511: {V}.secret.defaultMode"],
    ),
    ("hostPath", {"hostPath": {"path": "/"}}, [f"must not set the field(s): {V}.hostPath"]),
    ("an unknown medium", {"emptyDir": {"medium": "Disk"}}, [f"invalid value: Disk: {V}.emptyDir.medium"]),
    ("a size below zero", {"emptyDir": {"sizeLimit": "-1Mi"}}, [f"invalid value: -1Mi: {V}.emptyDir.sizeLimit"]),
    (
        "an empty source",
        {"projected": {"sources": [{}]}},
        [
            f"expected exactly one, got neither: {V}.projected.sources[0].configMap, "
            f"{V}.projected.sources[0].downwardAPI, "
            f"{V}.projected.sources[0].secret, {V}.projected.sources[0].serviceAccountToken"
        ],
    ),
    (
        "two sources in one",
        {"projected": {"sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]}},
        [f"expected exactly one, got both: {V}.projected.sources[0].configMap, {V}.projected.sources[0].secret"],
    ),
    (
        "a nameless source",
        {"projected": {"sources": [{"secret": {}}]}},
        [f"missing field(s): {V}.projected.sources[0].secret.name"],
    ),
    (
        "a token without path",
        {"projected": {"sources": [{"serviceAccountToken": {}}]}},
        [f"missing field(s): {V}.projected.sources[0].serviceAccountToken.path"],
    ),
    (
        "a downward file of nothing",
        {"projected": {"sources": [{"downwardAPI": {"items": [{"path": "p"}]}}]}},
        [
            f"expected exactly one, got neither: {V}.projected.sources[0].downwardAPI.items[0].fieldRef, "
            f"{V}.projected.sources[0].downwardAPI.items[0].resourceFieldRef"
        ],
    ),
    (
        "a trust bundle",
        {"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}, "secret": {"name": "a"}}]}},
        [f"must not set the field(s): {V}.projected.sources[0].clusterTrustBundle"],
    ),
]


@pytest.mark.parametrize(("source", "problems"), [row[1:] for row in VOLUMES], ids=[row[0] for row in VOLUMES])
def test_volumes(source: Json, problems: list[str]) -> None:
    spec = {**_container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": [{"name": "v", **source}]}
    assert _problems(spec) == problems


def test_empty_dirs_can_be_turned_off() -> None:
    spec = {**_container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": [{"name": "v", "emptyDir": {}}]}
    assert _problems(spec, _with(pod_spec_empty_dir="Disabled")) == [
        f"EmptyDir volume support is disabled, but found EmptyDir volume v: {V}"
    ]


def _claim(mount: Json | None = None, **claim: object) -> Json:
    source = {"name": "v", "persistentVolumeClaim": {"claimName": "data", **claim}}
    return {**_container(volumeMounts=[{"name": "v", "mountPath": "/v", **(mount or {})}]), "volumes": [source]}


def test_claims_are_off_by_default_and_say_how_to_turn_them_on() -> None:
    found = _problems(_claim())
    assert [text.splitlines()[0] for text in found] == [
        f"Persistent volume claim support is disabled, but found persistent volume claim data: {V}",
        "Persistent volume write support is disabled, but found persistent volume claim data that is not read-only: "
        f"{V}",
    ]
    assert 'Set kubernetes.podspec-persistent-volume-claim to "enabled"' in found[0]


def test_claims_that_are_turned_on_can_be_mounted() -> None:
    reading = _with(pod_spec_persistent_volume_claim="Enabled")
    writing = _with(pod_spec_persistent_volume_claim="Enabled", pod_spec_persistent_volume_write="Enabled")
    assert _problems(_claim(), writing) == []
    assert _problems(_claim({"readOnly": True}, readOnly=True), reading) == []
    assert _problems(_claim(readOnly=True), reading) == [f"volume is readOnly but volume mount is not: {M}.readOnly"]
    assert _problems(_claim(claimName=""), writing) == [f"missing field(s): {V}.persistentVolumeClaim.claimName"]


@pytest.mark.parametrize("kind", ["hostPath", "csi", "image"])
def test_other_volumes_are_never_taken(kind: str) -> None:
    spec = {**_container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": [{"name": "v", kind: {"a": 1}}]}
    assert _problems(spec) == [f"must not set the field(s): {V}.{kind}"]


NAMES: list[tuple[str, list[Json], list[str]]] = [
    (
        "twice",
        [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}],
        ['duplicate volume name "v": spec.volumes[1].name'],
    ),
    (
        "not mounted",
        [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
        ['volume with name "w" not mounted: spec.volumes[1].name'],
    ),
    (
        "none",
        [{"name": "v", "emptyDir": {}}, {"emptyDir": {}}],
        ["missing field(s): spec.volumes[1].name", 'volume with name "" not mounted: spec.volumes[1].name'],
    ),
    (
        "not a label",
        [{"name": "v", "emptyDir": {}}, {"name": "A_", "emptyDir": {}}],
        ["invalid value: A_: spec.volumes[1].name", 'volume with name "A_" not mounted: spec.volumes[1].name'],
    ),
]


@pytest.mark.parametrize(("volumes", "problems"), [row[1:] for row in NAMES], ids=[row[0] for row in NAMES])
def test_names_of_volumes(volumes: list[Json], problems: list[str]) -> None:
    assert _problems({**_container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": volumes}) == problems


MOUNTS: list[tuple[str, list[Json], list[str]]] = [
    ("plain", [{"name": "v", "mountPath": "/a/b/"}], []),
    (
        "no such volume",
        [{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/b"}],
        [f"volumeMount has no matching volume: {C}.volumeMounts[1].name"],
    ),
    ("no path", [{"name": "v"}], [f"missing field(s): {M}.mountPath"]),
    ("the root", [{"name": "v", "mountPath": "/"}], [f'mountPath "/" is a reserved path: {M}.mountPath']),
    ("the root, twice over", [{"name": "v", "mountPath": "//"}], [f'mountPath "/" is a reserved path: {M}.mountPath']),
    ("/dev", [{"name": "v", "mountPath": "/dev/"}], [f'mountPath "/dev" is a reserved path: {M}.mountPath']),
    (
        "/dev/log",
        [{"name": "v", "mountPath": "/x/../dev//log"}],
        [f'mountPath "/dev/log" is a reserved path: {M}.mountPath'],
    ),
    ("relative", [{"name": "v", "mountPath": "a/b"}], [f"invalid value: a/b: {M}.mountPath"]),
    (
        "the same place",
        [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a/"}],
        [f'invalid value: "/a/" must be unique: {C}.volumeMounts[1].mountPath'],
    ),
    (
        "propagation",
        [{"name": "v", "mountPath": "/a", "mountPropagation": "None"}],
        [f"must not set the field(s): {M}.mountPropagation"],
    ),
    (
        "a subPath out of it",
        [{"name": "v", "mountPath": "/a", "subPath": "../b"}],
        [f"invalid value: ../b: {M}.subPath\n{RELATIVE}"],
    ),
]


@pytest.mark.parametrize(("mounts", "problems"), [row[1:] for row in MOUNTS], ids=[row[0] for row in MOUNTS])
def test_mounts(mounts: list[Json], problems: list[str]) -> None:
    assert _problems({**_container(volumeMounts=mounts), "volumes": [{"name": "v", "emptyDir": {}}]}) == problems


def test_a_mount_of_an_object_must_be_read_only() -> None:
    spec = {
        **_container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        "volumes": [{"name": "v", "configMap": {"name": "c"}}],
    }
    assert f"volume mount should be readOnly for this type of volume: {M}.readOnly" in _problems(spec, defaults=False)


TIMES: list[tuple[Json, list[str]]] = [
    ({"timeoutSeconds": 600}, []),
    ({"timeoutSeconds": 601}, ["expected 0 <= 601 <= 600: spec.timeoutSeconds"]),
    ({"timeoutSeconds": -1}, ["expected 0 <= -1 <= 600: spec.timeoutSeconds"]),
    ({"containerConcurrency": 1000}, []),
    ({"containerConcurrency": 1001}, ["expected 0 <= 1001 <= 1000: spec.containerConcurrency"]),
    ({"containerConcurrency": -1}, ["expected 0 <= -1 <= 1000: spec.containerConcurrency"]),
    (
        {"timeoutSeconds": 10, "responseStartTimeoutSeconds": 11},
        ["expected 0 <= 11 <= 10: spec.responseStartTimeoutSeconds"],
    ),
    ({"timeoutSeconds": 10, "idleTimeoutSeconds": 11}, ["expected 0 <= 11 <= 10: spec.idleTimeoutSeconds"]),
    ({"timeoutSeconds": 10, "idleTimeoutSeconds": 10, "responseStartTimeoutSeconds": 0}, []),
    ({"idleTimeoutSeconds": -5}, ["expected 0 <= -5 <= 300: spec.idleTimeoutSeconds"]),
]


@pytest.mark.parametrize(("times", "problems"), TIMES)
def test_times_and_limits(times: Json, problems: list[str]) -> None:
    assert _problems({**_container(), **times}) == problems


def test_unlimited_concurrency_can_be_forbidden() -> None:
    config = replace(CONFIG, defaults=replace(CONFIG.defaults, allow_container_concurrency_zero=False))
    assert _problems(_container(), config) == ["expected 1 <= 0 <= 1000: spec.containerConcurrency"]


@given(pod_specs())
def test_what_may_be_run_is_not_refused(spec: Json) -> None:
    assert _problems(spec) == []
