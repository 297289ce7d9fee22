"""What clients read before they do anything."""

from typing import Any

import pytest

from knoll.values.json import Json
from knoll.values.kinds import KINDS
from tests.component.api.conftest import Running
from tests.doubles.memory_store import MemoryStore

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


async def test_plain_discovery_lists_groups_with_v1_preferred(api: Running) -> None:
    assert (await api.client.get("/api")).json()["versions"] == ["v1"]
    groups = {group["name"]: group for group in (await api.client.get("/apis")).json()["groups"]}
    serving = groups["serving.knative.dev"]
    assert serving["preferredVersion"]["version"] == "v1"
    assert [version["version"] for version in serving["versions"]] == ["v1", "v1beta1", "v1alpha1"]
    served_group = (await api.client.get("/apis/serving.knative.dev")).json()
    assert served_group["kind"] == "APIGroup"
    assert served_group["preferredVersion"] == serving["preferredVersion"]


@pytest.mark.parametrize(
    ("accept", "answered", "version"),
    [
        (f"{V2},{V2BETA1},application/json", V2, "apidiscovery.k8s.io/v2"),
        (f"{V2BETA1},application/json", V2BETA1, "apidiscovery.k8s.io/v2beta1"),
        ("application/json", "application/json", None),
        ("", "application/json", None),
        ("*/*", "application/json", None),
        (f"application/json,{V2}", "application/json", None),
        (
            "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json",
            "application/json",
            None,
        ),
    ],
)
async def test_the_aggregated_form_is_answered_only_as_it_was_asked_for(
    api: Running, accept: str, answered: str, version: str | None
) -> None:
    for path in ("/api", "/apis"):
        answer = await api.client.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"] == answered
        body = answer.json()
        assert (body.get("apiVersion") if version else None) == version
        if version:
            assert body["kind"] == "APIGroupDiscoveryList"
            resources = [r["resource"] for item in body["items"] for v in item["versions"] for r in v["resources"]]
            assert "services" in resources


async def test_every_kind_is_listed_at_each_of_its_versions_and_answers_there(api: Running) -> None:
    for kind in KINDS:
        for version in kind.versions:
            base = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
            listed = {entry["name"]: entry for entry in (await api.client.get(base)).json()["resources"]}
            assert listed[kind.plural]["kind"] == kind.kind
            assert listed[kind.plural]["verbs"] == list(kind.verbs)
            objects = await api.client.get(f"{base}/{kind.plural}")
            assert objects.status_code == 200
            assert objects.json()["kind"] == f"{kind.kind}List"


async def test_categories_are_given_once_for_each_kind(api: Running) -> None:
    old = (await api.client.get("/apis/serving.knative.dev/v1alpha1")).json()["resources"]
    assert "categories" not in next(entry for entry in old if entry["name"] == "services")
    new = (await api.client.get("/apis/serving.knative.dev/v1")).json()["resources"]
    assert next(entry for entry in new if entry["name"] == "services")["categories"] == ["all", "knative", "serving"]


async def test_the_version_is_that_of_a_kubernetes_release(api: Running) -> None:
    version = (await api.client.get("/version", params={"timeout": "32s"})).json()
    assert (version["major"], version["minor"]) == ("1", "32")
    assert version["gitVersion"].startswith("v1.32.")


async def test_openapi_offers_validation_and_schemas_for_every_kind(api: Running) -> None:
    index = (await api.client.get("/openapi/v3")).json()["paths"]
    for kind in KINDS:
        for version in kind.versions:
            path = f"apis/{kind.group}/{version}" if kind.group else f"api/{version}"
            document = (await api.client.get(index[path]["serverRelativeURL"])).json()
            identity = {"group": kind.group, "version": version, "kind": kind.kind}
            operations = [
                operation
                for item in document["paths"].values()
                for method, operation in item.items()
                if method != "parameters" and operation["x-kubernetes-group-version-kind"] == identity
            ]
            assert operations
            patches = [operation for operation in operations if operation["x-kubernetes-action"] == "patch"]
            if "patch" in kind.verbs:
                assert "fieldValidation" in [parameter["name"] for parameter in patches[0]["parameters"]]
            schemas = document["components"]["schemas"]
            assert [s for s in schemas.values() if identity in s.get("x-kubernetes-group-version-kind", [])]
            _references_resolve(document, schemas)


def _references_resolve(value: Any, schemas: Json) -> None:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            assert value["$ref"].removeprefix("#/components/schemas/") in schemas
        for part in value.values():
            _references_resolve(part, schemas)
    elif isinstance(value, list):
        for part in value:
            _references_resolve(part, schemas)


async def test_operation_ids_are_unique_in_each_document(api: Running) -> None:
    for entry in (await api.client.get("/openapi/v3")).json()["paths"].values():
        document = (await api.client.get(entry["serverRelativeURL"])).json()
        ids = [
            operation["operationId"]
            for item in document["paths"].values()
            for method, operation in item.items()
            if method != "parameters"
        ]
        assert len(ids) == len(set(ids))


async def test_openapi_v2_is_empty_and_protobuf(api: Running) -> None:
    answer = await api.client.get("/openapi/v2")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-type"] == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    assert (await api.client.get("/openapi/v3/apis/unknown/v1")).status_code == 404


async def test_reviews_answer_and_refuse(api: Running) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    attributes = {"spec": {"resourceAttributes": {"verb": "create", "resource": "services"}}}
    answer = await api.client.post(path, json=attributes)
    assert answer.status_code == 201
    assert answer.json()["status"]["allowed"] is True
    assert (await api.client.post(path, json={})).status_code == 400
    assert (await api.client.get(path)).status_code == 405
