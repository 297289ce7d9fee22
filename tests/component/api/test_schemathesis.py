"""Requests generated from our own OpenAPI documents: the API responds to each, and never with a 500."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from api.schema import openapi
from knoll.values.json import Json
from tests.component.api.processes import ApiProcess

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

EXAMPLES = settings().max_examples // 12
"""For each operation, of which there are about 190: half of them as its document asks for, half against it."""
POINTERS = ("", "/", "/metadata", "/metadata/labels", "/spec", "/spec/template/spec/containers/0", "/data/a", "/s/-")
STEPS = ("add", "remove", "replace", "move", "copy", "test")
POD: dict[str, Any] = {"spec": {"containers": [{"image": "registry.example/hello:v1"}]}}
REFERENCE = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "one"}
VALID: dict[str, dict[str, Any]] = {
    "serving.knative.dev Service": {"spec": {"template": POD}},
    "serving.knative.dev Configuration": {"spec": {"template": POD}},
    "serving.knative.dev Revision": POD,
    "serving.knative.dev Route": {"spec": {"traffic": [{"configurationName": "one", "percent": 100}]}},
    "serving.knative.dev DomainMapping": {"metadata": {"name": "one.example.com"}, "spec": {"ref": REFERENCE}},
    "build.knoll.dev Build": {"spec": {"source": {"uploadID": "0" * 32}, "serviceName": "one"}},
    "rbac.authorization.k8s.io RoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    },
    "rbac.authorization.k8s.io ClusterRoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    },
    "Event": {"involvedObject": {"kind": "Service", "namespace": "default", "name": "one"}},
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    "Service": {"spec": {"ports": [{"port": 80}]}},
}
"""What an object of a kind needs beside its name."""
DOCUMENTS = sorted(path for path in openapi.paths() if orjson.loads(openapi.document(path))["paths"])
AnyCase = Case[Any]


@pytest.fixture(scope="module")
def api(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.close()
    with ApiProcess(redis_server, tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def client(api: ApiProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, timeout=30) as http_client:
        yield http_client


@pytest.fixture(scope="module")
def seen() -> Counter[int]:
    """Answers by their status code."""
    return Counter()


def operations() -> list[Any]:
    """One of each, as pytest parameters named as in the document."""
    api_operations = []
    for path in DOCUMENTS:
        schema = schemathesis.openapi.from_dict(orjson.loads(openapi.document(path)))
        api_operations += [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    return [pytest.param(operation, id=operation.definition.raw["operationId"]) for operation in api_operations]


def json_patches() -> st.SearchStrategy[list[Json]]:
    scalars: st.SearchStrategy[object] = (
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.none()) | st.just({})
    )
    step = st.fixed_dictionaries(
        {
            "op": st.sampled_from(STEPS),
            "path": st.sampled_from(POINTERS),
        },
        optional={"value": scalars, "from": st.sampled_from(POINTERS)},
    )
    return st.lists(step, max_size=4)


def meant(case: AnyCase) -> Json:
    """Group, version and kind of what the operation is about."""
    return case.operation.definition.raw["x-kubernetes-group-version-kind"]  # type: ignore[no-any-return]


def valid(case: AnyCase) -> Json:
    """A valid object of the operation's kind."""
    kind = meant(case)
    template = VALID.get(f"{kind['group']} {kind['kind']}".strip(), {})
    api_version = f"{kind['group']}/{kind['version']}".strip("/")
    metadata = {"name": "one", **template.get("metadata", {})}
    return {**template, "apiVersion": api_version, "kind": kind["kind"], "metadata": metadata}


def named(case: AnyCase) -> str:
    return str(valid(case)["metadata"]["name"])


def aimed(case: AnyCase, data: st.DataObject, whole: st.SearchStrategy[AnyCase] | None) -> None:
    """Lead most requests past the first refusals: to a namespace that is there, with an object of the right kind."""
    often = st.sampled_from([True, True, True, False])
    place = case.path_parameters
    if "namespace" in place and data.draw(often):
        place["namespace"] = "default"
    if "name" in place and data.draw(often):
        place["name"] = named(case)
    for parameter in ("dryRun", "fieldValidation", "continue", "resourceVersion", "labelSelector", "fieldSelector"):
        if parameter in case.query and data.draw(often):
            del case.query[parameter]
    if whole is not None and case.method == "PATCH" and data.draw(often):
        by_steps = case.media_type == "application/json-patch+json"
        body: Any = data.draw(json_patches()) if by_steps else data.draw(whole).body
        case.body = body
    if isinstance(case.body, dict) and data.draw(often):
        whole_object = valid(case)
        metadata = case.body.get("metadata")
        whole_object["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "name": named(case)}
        # Half an object that is right is judged further than one that is wrong from the first field on.
        case.body = {**case.body, **whole_object} if data.draw(often) else {**whole_object, **case.body}


def answered(client: httpx.Client, case: AnyCase) -> int:
    """Send it; the status code. Of a watch, no more than its head is awaited."""
    asked = case.as_transport_kwargs(base_url=str(client.base_url).rstrip("/"))
    content = json.dumps(asked["json"]) if "json" in asked else asked.get("data")
    parameters, headers = asked.get("params"), dict(asked["headers"])
    request = client.build_request(asked["method"], asked["url"], params=parameters, headers=headers, content=content)
    with contextlib.closing(client.send(request, stream=True)) as answer:
        if answer.status_code >= 500:
            answer.read()
            pytest.fail(f"{case.as_curl_command()}: {answer.status_code} {answer.text[:500]}")
        return answer.status_code


@pytest.mark.parametrize("operation", operations())
def test_no_request_makes_a_500(api: ApiProcess, client: httpx.Client, seen: Counter[int], operation: Any) -> None:
    replace = operation.schema.find_operation_by_id
    name = operation.definition.raw["operationId"]
    whole = replace(name.replace("patch", "replace", 1)).as_strategy() if name.startswith("patch") else None

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE),
        data=st.data(),
    )
    def check(case: AnyCase, data: st.DataObject) -> None:
        if "name" in case.path_parameters:
            collection = case.path.replace("{namespace}", "default").removesuffix("/{name}")
            seen[client.post(collection, json=valid(case)).status_code] += 1
        aimed(case, data, whole)
        seen[answered(client, case)] += 1

    check()
    assert api.alive()


def test_the_requests_got_past_the_first_refusals(seen: Counter[int]) -> None:
    if seen.total() < 500:
        pytest.skip("only with all of the operations")
    assert seen[200] > 100, seen
    assert seen[201] > 10, seen
    assert seen[422] > 10, seen
