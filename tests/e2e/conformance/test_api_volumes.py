"""Knative's conformance tests of the API about volumes and limits."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.e2e.conformance.conftest import Namespace, service
from tests.e2e.conformance.test_api import PYTHON

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

OBJECTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {test.txt: from the map, other.txt: other}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {test.txt: from the secret}
"""
SERVE = ["python", "-m", "http.server", "8080", "--directory", "/"]
WRITE = ["sh", "-c", "echo written by $(id -u) > /data/test.txt && exec python -m http.server 8080 --directory /"]
MEGABYTE_COUNTS = [(100, True), (200, True), (500, False)]


def mounting(name: str, *volumes: dict[str, Any], mount: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A Service that has volumes at /v0, /v1 and so on, and shows its files."""
    mounts = [{"name": volume["name"], "mountPath": f"/v{at}", **(mount or {})} for at, volume in enumerate(volumes)]
    container = {"command": SERVE, "volumeMounts": mounts, **more}
    return service(name, image=PYTHON, spec={"volumes": list(volumes), "timeoutSeconds": 2}, **container)


def projected(*sources: dict[str, Any]) -> dict[str, Any]:
    return {"name": "all", "projected": {"sources": list(sources)}}


SERVICES = [
    mounting(
        "map",
        {"name": "there", "configMap": {"name": "map"}},
        {"name": "missing", "configMap": {"name": "none", "optional": True}},
    ),
    mounting("pmap", projected({"configMap": {"name": "map"}}, {"configMap": {"name": "none", "optional": True}})),
    mounting(
        "secret",
        {"name": "there", "secret": {"secretName": "secret"}},
        {"name": "missing", "secret": {"secretName": "none", "optional": True}},
    ),
    mounting(
        "psecret",
        projected({"secret": {"name": "secret"}}),
        mount={"mountPath": "/v0/only.txt", "subPath": "test.txt"},
    ),
    mounting(
        "complex",
        projected(
            {"configMap": {"name": "map", "items": [{"key": "other.txt", "path": "renamed/other.txt"}]}},
            {"configMap": {"name": "map", "items": [{"key": "test.txt", "path": "test.txt"}]}},
            {"secret": {"name": "secret", "items": [{"key": "test.txt", "path": "test.txt"}]}},
        ),
    ),
    mounting("token", projected({"serviceAccountToken": {"path": "token", "audience": "api"}})),
    mounting(
        "empty",
        {"name": "room", "emptyDir": {"medium": "Memory", "sizeLimit": "100M"}},
        mount={"mountPath": "/data"},
        command=WRITE,
        securityContext={"runAsUser": 65532},
    ),
    service("hungry", resources={"limits": {"memory": "350Mi"}}),
]


@pytest.fixture(scope="module")
def here(make_namespace: Callable[[str], AbstractContextManager[Namespace]]) -> Iterator[Namespace]:
    """All Services of this module, deployed at once."""
    with make_namespace("conformance-volumes") as namespace:
        namespace.kubectl("apply", "-f", "-", stdin=OBJECTS)
        namespace.apply(*SERVICES)
        yield namespace


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        pytest.param("map", "/v0/test.txt", "from the map", id="TestConfigMapVolume"),
        pytest.param("pmap", "/v0/test.txt", "from the map", id="TestProjectedConfigMapVolume"),
        pytest.param("secret", "/v0/test.txt", "from the secret", id="TestSecretVolume"),
        pytest.param("psecret", "/v0/only.txt", "from the secret", id="TestProjectedSecretVolume"),
        pytest.param("complex", "/v0/test.txt", "from the secret", id="TestProjectedComplex, the later source wins"),
        pytest.param("complex", "/v0/renamed/other.txt", "other", id="TestProjectedComplex, renamed"),
        pytest.param("empty", "/data/test.txt", "written by 65532\n", id="TestServiceCreateWithEmptyDir"),
    ],
)
def test_files_are_where_they_should_be(here: Namespace, name: str, path: str, content: str) -> None:
    answer = here.ask(name, path)
    assert (answer.status_code, answer.text) == (200, content)


@pytest.mark.parametrize("name", ["map", "secret"])
def test_an_optional_volume_of_nothing_is_an_empty_folder(here: Namespace, name: str) -> None:
    """TestConfigMapVolume, TestSecretVolume, their other half"""
    listing = here.ask(name, "/v1/")
    assert listing.status_code == 200
    assert "test.txt" not in listing.text


def test_a_projected_token_is_one_for_its_audience(here: Namespace) -> None:
    """TestProjectedServiceAccountToken"""
    answer = here.ask("token", "/v0/token")
    assert answer.status_code == 200
    payload = answer.text.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["aud"] == ["api"]
    assert claims["sub"] == "system:serviceaccount:conformance-volumes:default"


def test_a_limit_of_memory_is_kept(here: Namespace) -> None:
    """TestCustomResourcesLimits"""
    for megabytes, fits in MEGABYTE_COUNTS:
        assert (here.ask("hungry", f"/bloat?mb={megabytes}").status_code == 200) is fits, megabytes
