from typing import Any

import pytest
from hypothesis import given

from knoll.config.defaults import DefaultsConfig
from knoll.config.features import FeaturesConfig
from knoll.config.platform import PlatformConfig
from knoll.resources.admission.parsing import parse
from knoll.resources.admission.pod_defaults import defaulted_spec
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.models.revision import RevisionSpec
from knoll.values.json import Json
from tests.strategies import pod_specs

PARENT = ObjectMeta(name="hello", namespace="default")
READY: Json = {"successThreshold": 1, "tcpSocket": {"port": 0}}


def _defaulted(spec: Json, config: PlatformConfig | None = None, **options: Any) -> Json:
    spec_model = parse(RevisionSpec, spec)[0]
    return defaulted_spec(spec_model, config or PlatformConfig(), PARENT, **options).to_json()


def _container(container: Json, config: PlatformConfig | None = None) -> Json:
    (defaulted,) = _defaulted({"containers": [container]}, config)["containers"]
    return dict(defaulted)


def test_an_empty_spec_gets_every_default() -> None:
    assert _defaulted({"containers": [{"image": "a"}]}) == {
        "containers": [{"name": "user-container", "image": "a", "resources": {}, "readinessProbe": READY}],
        "containerConcurrency": 0,
        "timeoutSeconds": 300,
        "enableServiceLinks": False,
    }


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"timeoutSeconds": 0}, {"timeoutSeconds": 300}),
        ({"timeoutSeconds": 5}, {"timeoutSeconds": 5}),
        ({"timeoutSeconds": 600}, {"timeoutSeconds": 600, "responseStartTimeoutSeconds": 300}),
        ({"timeoutSeconds": 301}, {"timeoutSeconds": 301, "responseStartTimeoutSeconds": 300}),
        ({"timeoutSeconds": 600, "responseStartTimeoutSeconds": 0}, {"responseStartTimeoutSeconds": 0}),
        ({"timeoutSeconds": 300}, {"responseStartTimeoutSeconds": None}),
        ({"idleTimeoutSeconds": 9}, {"idleTimeoutSeconds": 9}),
        ({}, {"idleTimeoutSeconds": None}),
        ({"containerConcurrency": 7}, {"containerConcurrency": 7}),
        ({"enableServiceLinks": True}, {"enableServiceLinks": True}),
    ],
)
def test_times_and_limits_are_filled_in(given: Json, shown: Json) -> None:
    defaulted = _defaulted({"containers": [{"image": "a"}], **given})
    assert {key: defaulted.get(key) for key in shown} == shown


def test_service_links_can_be_left_open() -> None:
    assert "enableServiceLinks" not in _defaulted({"containers": [{"image": "a"}]}, service_links=False)


@pytest.mark.parametrize(
    ("given_names", "names"),
    [
        ([""], ["user-container"]),
        (["web"], ["web"]),
        (["", ""], ["user-container-0", "user-container-1"]),
        (["", "user-container-0", ""], ["user-container-1", "user-container-0", "user-container-2"]),
        (["web", ""], ["web", "user-container-0"]),
    ],
)
def test_containers_without_a_name_get_one_that_is_free(given_names: list[str], names: list[str]) -> None:
    defaulted = _defaulted({"containers": [{"image": "a", "name": name} for name in given_names]})
    assert [container["name"] for container in defaulted["containers"]] == names


def test_init_containers_are_named_and_get_no_probe() -> None:
    defaulted = _defaulted(
        {"containers": [{"image": "a"}], "initContainers": [{"image": "b"}, {"image": "c", "name": "x"}]}
    )
    assert defaulted["initContainers"] == [
        {"name": "init-container-0", "image": "b", "resources": {}},
        {"name": "x", "image": "c", "resources": {}},
    ]


def test_the_name_of_a_container_can_come_from_the_service() -> None:
    config = PlatformConfig(defaults=DefaultsConfig(user_container_name="{{.Name}}-app"))
    assert _container({"image": "a"}, config)["name"] == "hello-app"


PROBES: list[tuple[Json | None, Json]] = [
    (None, READY),
    ({}, READY),
    ({"successThreshold": 2}, {"successThreshold": 2, "tcpSocket": {"port": 0}}),
    ({"httpGet": {"path": "/"}}, {"httpGet": {"path": "/", "port": 0}, "successThreshold": 1}),
    ({"tcpSocket": {}}, READY),
    ({"tcpSocket": {"port": 9000}}, {"tcpSocket": {"port": 9000}, "successThreshold": 1}),
    ({"exec": {"command": ["a"]}}, {"exec": {"command": ["a"]}, "successThreshold": 1}),
    ({"grpc": {}}, {"grpc": {"port": 0, "service": ""}, "successThreshold": 1}),
    ({"grpc": {"service": "x"}}, {"grpc": {"port": 0, "service": "x"}, "successThreshold": 1}),
    (
        {"httpGet": {"path": "/"}, "initialDelaySeconds": 0, "periodSeconds": 3},
        {
            "httpGet": {"path": "/", "port": 0},
            "periodSeconds": 3,
            "successThreshold": 1,
            "failureThreshold": 3,
            "timeoutSeconds": 1,
        },
    ),
    (
        {"tcpSocket": {}, "periodSeconds": 1, "failureThreshold": 7, "timeoutSeconds": 4},
        {
            "tcpSocket": {"port": 0},
            "periodSeconds": 1,
            "successThreshold": 1,
            "failureThreshold": 7,
            "timeoutSeconds": 4,
        },
    ),
]


@pytest.mark.parametrize(("given", "shown"), PROBES)
def test_the_readiness_probe_is_filled_in(given: Json | None, shown: Json) -> None:
    container: Json = {"image": "a"} if given is None else {"image": "a", "readinessProbe": given}
    assert _container(container)["readinessProbe"] == shown


def test_only_the_container_with_a_port_gets_a_probe() -> None:
    defaulted = _defaulted({"containers": [{"image": "a"}, {"image": "b", "ports": [{"containerPort": 80}]}]})
    assert ["readinessProbe" in container for container in defaulted["containers"]] == [False, True]


def test_sidecars_have_their_probes_completed_when_they_may_have_some() -> None:
    config = PlatformConfig(features=FeaturesConfig(multi_container_probing="Enabled"))
    sidecar = {"image": "b", "readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 2}}
    defaulted = _defaulted({"containers": [{"image": "a", "ports": [{"containerPort": 80}]}, sidecar]}, config)
    assert defaulted["containers"][1]["readinessProbe"] == {
        "httpGet": {"port": 1}, "periodSeconds": 2, "successThreshold": 1, "failureThreshold": 3, "timeoutSeconds": 1,
    }  # fmt: skip


def test_other_probes_get_their_ports() -> None:
    defaulted = _container(
        {"image": "a", "livenessProbe": {"httpGet": {"path": "/l"}}, "startupProbe": {"tcpSocket": {}}}
    )
    assert defaulted["livenessProbe"] == {"httpGet": {"path": "/l", "port": 0}}
    assert defaulted["startupProbe"] == {"tcpSocket": {"port": 0}}


def test_mounts_are_read_only_unless_their_volume_can_be_written() -> None:
    volumes = [
        {"name": "c", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {}},
        {"name": "p", "persistentVolumeClaim": {"claimName": "p"}}, {"name": "s", "secret": {"secretName": "s"}},
    ]  # fmt: skip
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    defaulted = _defaulted({"containers": [{"image": "a", "volumeMounts": mounts}], "volumes": volumes})
    read_only = [mount.get("readOnly", False) for mount in defaulted["containers"][0]["volumeMounts"]]
    assert read_only == [True, False, False, True]


def test_unset_resources_come_from_the_configuration() -> None:
    config = PlatformConfig(
        defaults=DefaultsConfig(
            requests={"cpu": "100m", "memory": "1Mi"}, limits={"cpu": "1", "ephemeral-storage": "1G"}
        )
    )
    defaulted = _container({"image": "a", "resources": {"requests": {"cpu": "200m"}}}, config)
    assert defaulted["resources"] == {
        "requests": {"cpu": "200m", "memory": "1Mi"}, "limits": {"cpu": "1", "ephemeral-storage": "1G"},
    }  # fmt: skip


def test_secure_defaults_are_strict() -> None:
    config = PlatformConfig(features=FeaturesConfig(secure_pod_defaults="Enabled"))
    assert _container({"image": "a", "ports": [{"containerPort": 80}]}, config)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "runAsNonRoot": True,
    }


def test_secure_defaults_keep_what_is_set() -> None:
    config = PlatformConfig(features=FeaturesConfig(secure_pod_defaults="AllowRootBounded"))
    given = {"allowPrivilegeEscalation": True, "seccompProfile": {"type": "Unconfined"}, "capabilities": {}}
    assert _container({"image": "a", "securityContext": given}, config)["securityContext"] == given


@given(pod_specs())
def test_defaulting_twice_changes_nothing(spec: Json) -> None:
    once = _defaulted(spec)
    assert _defaulted(once) == once


@given(pod_specs())
def test_defaulting_takes_nothing_away(spec: Json) -> None:
    before = parse(RevisionSpec, spec)[0].to_json()
    after = _defaulted(spec)
    assert [container["image"] for container in after["containers"]] == [item["image"] for item in before["containers"]]
    for key, value in before.items():
        if key not in ("containers", "timeoutSeconds"):
            assert after[key] == value
