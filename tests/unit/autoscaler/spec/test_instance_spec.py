"""What is run for a Revision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.probes.spec import ExecCheck, GrpcCheck, HttpCheck, ProbeSpec, TcpCheck
from autoscaler.runtime.model import Mount, Resources
from autoscaler.spec.instance_spec import instance_name, instance_spec, probes
from tests.unit.autoscaler.sample_revisions import DIGEST, revision

NAME = "hello-00001-deployment-0123456789-abcde"


def container(**more: object) -> dict[str, object]:
    return {"name": "user-container", "image": "app", **more}


def test_the_pinned_image_is_run() -> None:
    spec = instance_spec(revision(), NAME)
    assert [each.image for each in spec.containers] == [DIGEST]
    assert (spec.revision, spec.uid, spec.port, spec.grace_seconds) == (
        "default/hello-00001",
        "uid-hello-00001",
        8080,
        300.0,
    )


def test_only_the_serving_container_gets_the_port_and_all_get_their_identity() -> None:
    both = [container(ports=[{"containerPort": 9000}]), {"name": "sidecar", "image": "side"}]
    serving, sidecar = instance_spec(revision(spec={"containers": both}), NAME).containers
    identity = {"K_SERVICE": "hello", "K_CONFIGURATION": "hello", "K_REVISION": "hello-00001"}
    assert serving.env == {**identity, "PORT": "9000"}
    assert sidecar.env == identity


def test_variables_of_the_platform_cannot_be_overridden() -> None:
    env = [{"name": "K_SERVICE", "value": "other"}, {"name": "PORT", "value": "1"}, {"name": "MINE", "value": "2"}]
    spec = instance_spec(revision(spec={"containers": [container(env=env)]}), NAME)
    assert (spec.containers[0].env["K_SERVICE"], spec.containers[0].env["PORT"]) == ("hello", "8080")
    assert spec.containers[0].env["MINE"] == "2"


def test_references_in_commands_and_variables_are_expanded() -> None:
    own = container(
        command=["/bin/$(TOOL)"], args=["--port=$(PORT)", "$$(PORT)"],
        env=[{"name": "TOOL", "value": "serve"}, {"name": "WHOLE", "value": "$(K_REVISION)/$(TOOL)"}],
    )  # fmt: skip
    made = instance_spec(revision(spec={"containers": [own]}), NAME).containers[0]
    assert (made.command, made.args) == (("/bin/serve",), ("--port=8080", "$(PORT)"))
    assert made.env["WHOLE"] == "hello-00001/serve"


def test_resources_are_cores_and_bytes() -> None:
    own = container(resources={"requests": {"cpu": "25m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "1G"}})
    made = instance_spec(revision(spec={"containers": [own]}), NAME).containers[0]
    assert made.resources == Resources(0.025, 2.0, 64 * 1024**2, 10**9)


def test_an_empty_dir_is_memory_with_its_bound() -> None:
    own = container(volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}])
    volumes = [{"name": "scratch", "emptyDir": {"sizeLimit": "10Mi"}}]
    made = instance_spec(revision(spec={"containers": [own], "volumes": volumes}), NAME).containers[0]
    assert made.mounts == (Mount("/scratch", "tmpfs", size_bytes=10 * 1024**2),)


def test_the_security_context_is_taken_over() -> None:
    context = {
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "readOnlyRootFilesystem": True,
        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
    }
    own = container(securityContext=context, workingDir="/srv")
    made = instance_spec(revision(spec={"containers": [own]}), NAME).containers[0]
    assert (made.user, made.group, made.read_only_root, made.working_dir) == (1000, 2000, True, "/srv")
    assert (tuple(made.add_capabilities), tuple(made.drop_capabilities)) == (("NET_BIND_SERVICE",), ("ALL",))


def test_the_security_context_of_the_pod_is_the_default_of_its_containers() -> None:
    together = {"runAsUser": 7, "runAsGroup": 8, "runAsNonRoot": True, "supplementalGroups": [9]}
    own = {"runAsUser": 1, "runAsNonRoot": False}
    both = [container(ports=[{"containerPort": 8080}]), {"name": "other", "image": "b", "securityContext": own}]
    made = instance_spec(revision(spec={"containers": both, "securityContext": together}), NAME).containers
    assert [(instance.user, instance.group, tuple(instance.groups), instance.non_root) for instance in made] == [
        (7, 8, (9,), True), (1, 8, (9,), False)
    ]  # fmt: skip


def test_a_probe_asks_the_instance_whatever_host_a_stored_revision_names() -> None:
    own = container(livenessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}},
                    startupProbe={"tcpSocket": {"host": "redis", "port": 6379}})  # fmt: skip
    made = probes(revision(spec={"containers": [own]}))["user-container"]
    assert made.liveness is not None
    assert made.startup is not None
    assert made.liveness.check == HttpCheck(80, "/", "http")
    assert made.startup.check == TcpCheck(6379)


def test_the_grace_is_the_request_timeout() -> None:
    assert instance_spec(revision(spec={"timeoutSeconds": 7}), NAME).grace_seconds == 7


def test_labels_are_those_of_a_pod() -> None:
    labels = instance_spec(revision(), NAME).labels
    assert labels["app"] == labels["serving.knative.dev/revision"] == "hello-00001"
    assert labels["serving.knative.dev/revisionUID"] == "uid-hello-00001"
    assert labels["serving.knative.dev/service"] == "hello"
    assert "serving.knative.dev/routingState" not in labels


def test_an_image_that_is_not_resolved_cannot_be_run() -> None:
    unresolved = revision().model_copy(
        update={"status": revision().status.model_copy(update={"container_statuses": ()})}
    )
    with pytest.raises(KeyError):
        instance_spec(unresolved, NAME)


def test_an_instance_is_named_for_its_revision() -> None:
    name = instance_name(revision(), "abcde")
    assert name.startswith("hello-00001-deployment-")
    assert name.endswith("-abcde")
    assert instance_name(revision(uid="other"), "abcde") != name


@given(st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True))
def test_an_instance_has_a_name_that_a_host_may_have(name: str) -> None:
    made = instance_name(revision(name), "abcde")
    assert len(made) <= 63
    assert made.endswith("abcde")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"tcpSocket": {"port": 0}}, TcpCheck(9000)),
        ({"tcpSocket": {"port": 70}}, TcpCheck(70)),
        ({"tcpSocket": {"port": "http1"}}, TcpCheck(9000)),
        ({"httpGet": {"path": "/ready", "port": 0}}, HttpCheck(9000, "/ready")),
        (
            {"httpGet": {"path": "/", "port": 81, "scheme": "HTTPS", "httpHeaders": [{"name": "A", "value": "b"}]}},
            HttpCheck(81, "/", "HTTPS", headers=(("A", "b"),)),
        ),
        ({"exec": {"command": ["true"]}}, ExecCheck(("true",))),
        ({"grpc": {"port": 5, "service": "s"}}, GrpcCheck(5, "s")),
        ({"grpc": {}}, GrpcCheck(9000)),
    ],
)
def test_a_probe_asks_what_the_revision_says(written: dict[str, object], expected: object) -> None:
    own = container(ports=[{"containerPort": 9000}], readinessProbe=written)
    readiness = probes(revision(spec={"containers": [own]}))["user-container"].readiness
    assert readiness is not None
    assert readiness.check == expected


def test_a_startup_probe_without_a_period_has_kubernetes_default() -> None:
    check = {"tcpSocket": {"port": 8080}}
    own = container(startupProbe=check, livenessProbe=check)
    parsed = probes(revision(spec={"containers": [own]}))["user-container"]
    assert parsed.startup == ProbeSpec(TcpCheck(8080), period_seconds=10, eager=True)
    assert parsed.liveness == ProbeSpec(TcpCheck(8080), period_seconds=10)


def test_probes_have_kubernetes_defaults_and_readiness_is_eager_at_the_start() -> None:
    check = {"tcpSocket": {"port": 0}}
    own = container(readinessProbe=check, livenessProbe={**check, "periodSeconds": 3, "failureThreshold": 9})
    parsed = probes(revision(spec={"containers": [own]}))["user-container"]
    assert parsed.startup is None
    assert parsed.readiness is not None
    assert parsed.readiness == ProbeSpec(TcpCheck(8080), period_seconds=parsed.readiness.period_seconds, eager=True)
    assert parsed.liveness == ProbeSpec(TcpCheck(8080), period_seconds=3, failure_threshold=9)
