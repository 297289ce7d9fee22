"""Invalid sidecars and init containers of a Revision, with Knative's messages."""

import copy

import pytest

from knoll.values.json import Json
from tests.unit.knoll.resources.revision_specs import container, problems_of, with_features

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
    assert problems_of(spec) == problems


def test_several_containers_can_be_turned_off() -> None:
    assert problems_of(TWO, with_features(multi_container="Disabled")) == [
        "multi-container is off, but found 2 containers: spec"
    ]


def test_probes_of_sidecars_can_be_turned_on() -> None:
    config = with_features(multi_container_probing="Enabled")
    assert problems_of(_two(readinessProbe={"tcpSocket": {"port": 81}}), config) == []
    assert problems_of(_two(readinessProbe={"tcpSocket": {"port": "h"}}), config) == [
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
    assert problems_of(spec, with_features(pod_spec_init_containers="Enabled")) == problems


def test_init_containers_are_off_by_default() -> None:
    (problem,) = problems_of({**container(), "initContainers": [{"image": "i"}]})
    assert problem.startswith("pod spec support for init-containers is off, but found 1 init containers: spec\n")
