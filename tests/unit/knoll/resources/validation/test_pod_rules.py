"""Invalid containers of a Revision, with Knative's messages."""

from dataclasses import replace

import pytest
from hypothesis import given

from knoll.values.json import Json
from knoll.values.names import dns_1123_problems
from tests.strategies import pod_specs
from tests.unit.knoll.resources.revision_specs import CONFIG, C, container, problems_of, with_features

DNS_LABEL = dns_1123_problems("_")[0]
SECCOMP = "instances run with the engine's default profile: use RuntimeDefault, or omit the field"
ESCALATION = "instances cannot gain privileges: use false, or omit the field"
VARIABLE = "a valid environment variable name must consist only of printable ASCII characters other than '='"
PORTS = "Name must be empty, or one of: 'h2c', 'http1'"

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
    ("a reserved name", container(name="queue-proxy"), [f'"queue-proxy" is a reserved container name: {C}.name']),
    (
        "a name that is none",
        container(name="Bad_Name"),
        [f"validation callback failed: invalid value: Bad_Name: {C}.name\n{DNS_LABEL}"],
    ),
    ("lifecycle hooks", container(lifecycle={"preStop": {}}), [f"must not set the field(s): {C}.lifecycle"]),
    ("stdin", container(stdin=True, stdinOnce=True), [f"must not set the field(s): {C}.stdin, {C}.stdinOnce"]),
    ("tty", container(tty=True), [f"must not set the field(s): {C}.tty"]),
    ("false is not set", container(tty=False, stdin=False), []),
    ("volume devices", container(volumeDevices=[{"name": "a"}]), [f"must not set the field(s): {C}.volumeDevices"]),
    (
        "host port",
        container(ports=[{"containerPort": 80, "hostPort": 80}]),
        [f"must not set the field(s): {C}.ports.hostPort"],
    ),
    (
        "host ip",
        container(ports=[{"containerPort": 80, "hostIP": "::"}]),
        [f"must not set the field(s): {C}.ports.hostIP"],
    ),
    (
        "an odd port name",
        container(ports=[{"containerPort": 80, "name": "foobar"}]),
        [f"Port name foobar is not allowed: {C}.ports\n{PORTS}"],
    ),
    ("h2c", container(ports=[{"containerPort": 80, "name": "h2c"}]), []),
    ("http1", container(ports=[{"containerPort": 80, "name": "http1", "protocol": "TCP"}]), []),
    ("UDP", container(ports=[{"containerPort": 80, "protocol": "UDP"}]), [f"invalid value: UDP: {C}.ports.protocol"]),
    (
        "two ports",
        container(ports=[{"containerPort": 80}, {"containerPort": 81}]),
        [
            "more than one container port is set: spec.containers[*].ports\n"
            "Only a single port is allowed across all containers"
        ],
    ),
    (
        "a port too high",
        container(ports=[{"containerPort": 65536}]),
        [f"expected 0 <= 65536 <= 65535: {C}.ports.containerPort"],
    ),
    (
        "a port below zero",
        container(ports=[{"containerPort": -1}]),
        [f"expected 0 <= -1 <= 65535: {C}.ports.containerPort"],
    ),
    ("a port of zero", container(ports=[{"containerPort": 0}]), []),
    ("env without name", container(env=[{"value": "a"}]), [f"missing field(s): {C}.env[0].name"]),
    (
        "env with =",
        container(env=[{"name": "A=B"}]),
        [f"invalid value: A=B: {C}.env[0].name\n{VARIABLE}"],
    ),
    (
        "env twice over",
        container(env=[{"name": "A", "value": "a", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
        [f"expected exactly one, got both: {C}.env[0].value, {C}.env[0].valueFrom"],
    ),
    (
        "env from nowhere",
        container(env=[{"name": "A", "valueFrom": {}}]),
        [f"expected exactly one, got neither: {C}.env[0].valueFrom.configMapKeyRef, {C}.env[0].valueFrom.secretKeyRef"],
    ),
    (
        "env from a field",
        container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        [f"must not set the field(s): {C}.env[0].valueFrom.fieldRef"],
    ),
    (
        "env from a nameless secret",
        container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {}}}]),
        [f"missing field(s): {C}.env[0].valueFrom.secretKeyRef.key, {C}.env[0].valueFrom.secretKeyRef.name"],
    ),
    (
        "envFrom nothing",
        container(envFrom=[{"prefix": "A"}]),
        [f"expected exactly one, got neither: {C}.envFrom[0].configMapRef, {C}.envFrom[0].secretRef"],
    ),
    (
        "envFrom both",
        container(envFrom=[{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}]),
        [f"expected exactly one, got both: {C}.envFrom[0].configMapRef, {C}.envFrom[0].secretRef"],
    ),
    (
        "envFrom without name",
        container(envFrom=[{"secretRef": {}}]),
        [f"missing field(s): {C}.envFrom[0].secretRef.name"],
    ),
    (
        "resource claims",
        container(resources={"claims": [{"name": "a"}]}),
        [f"must not set the field(s): {C}.resources.claims"],
    ),
    (
        "negative resources",
        container(resources={"limits": {"cpu": "-1"}}),
        [f"invalid value: -1: {C}.resources.limits[cpu]\nmust not be negative"],
    ),
    (
        "a request above the limit",
        container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}),
        [f"invalid value: 1500m: {C}.resources.requests[cpu]\nmust not exceed the limit, which is 1"],
    ),
    (
        "a user below zero",
        container(securityContext={"runAsUser": -10}),
        [f"expected 0 <= -10 <= 2147483647: {C}.securityContext.runAsUser"],
    ),
    (
        "a group too high",
        container(securityContext={"runAsGroup": 2**31}),
        [f"expected 0 <= 2147483648 <= 2147483647: {C}.securityContext.runAsGroup"],
    ),
    (
        "privileged",
        container(securityContext={"privileged": True}),
        [f"must not set the field(s): {C}.securityContext.privileged"],
    ),
    (
        "capabilities",
        container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        [f"must not set the field(s): {C}.securityContext.capabilities.add"],
    ),
    (
        "binding low ports",
        container(securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}),
        [],
    ),
    (
        "an unknown seccomp profile",
        container(securityContext={"seccompProfile": {"type": "Mine"}}),
        [f"invalid value: Mine: {C}.securityContext.seccompProfile.type\n{SECCOMP}"],
    ),
    (
        "seccomp off",
        container(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        [f"invalid value: Unconfined: {C}.securityContext.seccompProfile.type\n{SECCOMP}"],
    ),
    (
        "a profile of one's own",
        container(securityContext={"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}),
        [f"must not set the field(s): {C}.securityContext.seccompProfile.localhostProfile"],
    ),
    ("the default profile", container(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}), []),
    (
        "gaining privileges",
        container(securityContext={"allowPrivilegeEscalation": True}),
        [f"invalid value: true: {C}.securityContext.allowPrivilegeEscalation\n{ESCALATION}"],
    ),
    ("gaining none", container(securityContext={"allowPrivilegeEscalation": False}), []),
    (
        "a capability that is none",
        container(securityContext={"capabilities": {"drop": ["NET_ROW", "CAP_NET_RAW", "all"]}}),
        [f"invalid value: NET_ROW: {C}.securityContext.capabilities.drop[0]\nis not a Linux capability"],
    ),
    (
        "devices",
        container(resources={"limits": {"nvidia.com/gpu": "1"}}),
        [
            f'invalid key name "nvidia.com/gpu": {C}.resources.limits\n'
            "unsupported resource: use cpu, ephemeral-storage, memory"
        ],
    ),
    (
        "a variable with a line break",
        container(env=[{"name": "A\nB", "value": "x"}]),
        [f"invalid value: A\\x0aB: {C}.env[0].name\n{VARIABLE}"],
    ),
    (
        "a variable that is not ASCII",
        container(env=[{"name": "É"}]),
        [f"invalid value: É: {C}.env[0].name\n{VARIABLE}"],
    ),
    ("a value with line breaks", container(env=[{"name": "A", "value": "a\nb\x1b"}]), []),
    (
        "a value with a zero byte",
        container(env=[{"name": "A", "value": "a\0"}]),
        [f"invalid value: a\\x00: {C}.env[0].value\nmust not contain a NUL byte"],
    ),
    (
        "a prefix that is none",
        container(envFrom=[{"prefix": "A\r", "configMapRef": {"name": "c"}}]),
        [f"invalid value: A\\x0d: {C}.envFrom[0].prefix\n{VARIABLE}"],
    ),
    (
        "a message elsewhere",
        container(terminationMessagePath="/tmp/message"),
        [
            f"invalid value: /tmp/message: {C}.terminationMessagePath\ntermination messages are read from the end of "
            "the log: use /dev/termination-log, or omit the field"
        ],
    ),
    (
        "the usual message",
        container(terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File"),
        [],
    ),
    (
        "a probe of another host",
        container(livenessProbe={"tcpSocket": {"port": 1, "host": "169.254.169.254"}}),
        [
            f"invalid value: 169.254.169.254: {C}.livenessProbe.tcpSocket.host\n"
            "probes are always sent to the instance: omit the field"
        ],
    ),
    ("a probe of the instance", container(livenessProbe={"httpGet": {"path": "/a?b=c", "host": "127.0.0.1"}}), []),
    (
        "a probe with two requests",
        container(
            readinessProbe={
                "httpGet": {
                    "path": "/ HTTP/1.1\r\n\r\nGET /",
                    "httpHeaders": [{"name": "A:\r\nB", "value": "x"}, {"name": "A", "value": "\n"}],
                }
            }
        ),
        [
            f"invalid value: / HTTP/1.1\\x0d\\x0a\\x0d\\x0aGET /: {C}.readinessProbe.httpGet.path\n"
            "must not contain spaces and control characters",
            f"invalid value: A:\\x0d\\x0aB: {C}.readinessProbe.httpGet.httpHeaders[0].name\n"
            "is not the name of an HTTP header (RFC 9110, 5.1)",
            f"invalid value: \\x0a: {C}.readinessProbe.httpGet.httpHeaders[1].value\n"
            "must not contain control characters",
        ],
    ),
    (
        "an unknown pull policy",
        container(imagePullPolicy="Sometimes"),
        [f"invalid value: Sometimes: {C}.imagePullPolicy"],
    ),
    (
        "an unknown message policy",
        container(terminationMessagePolicy="Not a Policy"),
        [f"invalid value: Not a Policy: {C}.terminationMessagePolicy"],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), [row[1:] for row in CONTAINERS], ids=[row[0] for row in CONTAINERS])
def test_containers(spec: Json, problems: list[str]) -> None:
    assert problems_of(spec) == problems


@pytest.mark.parametrize("port", [8008, 8012, 8013, 8022, 9090, 9091])
def test_ports_of_the_platform_are_reserved(port: int) -> None:
    problem = f"{port} is a reserved port"
    assert problems_of(container(ports=[{"containerPort": port}])) == [
        f"invalid value: {problem}: {C}.ports.containerPort\n{problem}, please use a different value"
    ]


@pytest.mark.parametrize("name", ["PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"])
def test_variables_of_the_platform_are_reserved(name: str) -> None:
    assert problems_of(container(env=[{"name": name, "value": "x"}])) == [
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
    spec = {**container(), field: {"a": "b"}}
    assert problems_of(spec) == [f"must not set the field(s): spec.{field}"]
    assert problems_of(spec, with_features(**{POD_FIELDS[field]: "Enabled"})) == []
    assert problems_of(spec, with_features(**{POD_FIELDS[field]: "Allowed"})) == []


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
    assert problems_of({**container(), field: "x"}) == [f"must not set the field(s): spec.{field}"]


def test_a_service_account_must_be_a_name() -> None:
    assert problems_of({**container(), "serviceAccountName": "foo@bar.baz"}) == [
        "invalid value: foo@bar.baz: spec.serviceAccountName\na lowercase RFC 1123 subdomain must consist of lower "
        "case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
        "'example.com', regex used for validation is "
        r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]


def test_the_token_of_the_account_can_only_be_left_out() -> None:
    assert problems_of({**container(), "automountServiceAccountToken": False}) == []
    problems = problems_of({**container(), "automountServiceAccountToken": True})
    assert problems == ["must not set the field(s): spec.automountServiceAccountToken"]


POD_SECURITY: list[tuple[object, list[str]]] = [
    ({"runAsUser": 1, "runAsGroup": 2, "supplementalGroups": [4], "runAsNonRoot": True}, []),
    (
        {"fsGroup": 3},
        [
            "must not set the field(s): spec.securityContext.fsGroup\n"
            "files of volumes keep their owner and group: use supplementalGroups"
        ],
    ),
    (
        {"seccompProfile": {"type": "Unconfined"}},
        [f"invalid value: Unconfined: spec.securityContext.seccompProfile.type\n{SECCOMP}"],
    ),
    ({"runAsUser": -1}, ["expected 0 <= -1 <= 2147483647: spec.securityContext.runAsUser"]),
    ({"supplementalGroups": [1, -2]}, ["expected 0 <= -2 <= 2147483647: spec.securityContext.supplementalGroups[1]"]),
    ({"sysctls": [{"name": "a"}]}, ["must not set the field(s): spec.securityContext.sysctls"]),
    ({"seccompProfile": {"type": "RuntimeDefault"}}, []),
]


@pytest.mark.parametrize(("context", "problems"), POD_SECURITY)
def test_the_security_context_of_all_containers(context: object, problems: list[str]) -> None:
    spec = {**container(), "securityContext": context}
    assert problems_of(spec, with_features(pod_spec_security_context="Enabled")) == problems
    assert "must not set the field(s): spec.securityContext" in "\n".join(problems_of(spec))


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
    assert problems_of({**container(), **times}) == problems


def test_unlimited_concurrency_can_be_forbidden() -> None:
    config = replace(CONFIG, defaults=replace(CONFIG.defaults, allow_container_concurrency_zero=False))
    assert problems_of(container(), config) == ["expected 1 <= 0 <= 1000: spec.containerConcurrency"]


@given(pod_specs())
def test_what_may_be_run_is_not_refused(spec: Json) -> None:
    assert problems_of(spec) == []
