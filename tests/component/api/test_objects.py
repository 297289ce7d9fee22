"""Objects over HTTP: valid ones are stored and read back, invalid ones are refused."""

import asyncio
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.auth.access import TrustedPort
from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from tests.component.api.conftest import CONFIG_MAPS, SERVICES, Make, Running, reason
from tests.conftest import free_port
from tests.doubles.memory_store import MemoryStore


async def test_a_created_object_has_identity_times_and_generation_one(api: Running, service: Make) -> None:
    answer = await api.client.post(SERVICES, json=service())
    assert answer.status_code == 201
    metadata = answer.json()["metadata"]
    assert metadata["generation"] == 1
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    read = await api.client.get(f"{SERVICES}/hello")
    assert read.json() == answer.json()


async def test_missing_taken_and_nameless_objects_are_named_in_the_error(api: Running, service: Make) -> None:
    missing = await api.client.get(f"{SERVICES}/unknown")
    assert reason(missing) == (404, "NotFound")
    assert missing.json()["message"] == 'services.serving.knative.dev "unknown" not found'
    assert missing.json()["details"] == {"name": "unknown", "group": "serving.knative.dev", "kind": "services"}
    await api.client.post(SERVICES, json=service())
    taken = await api.client.post(SERVICES, json=service())
    assert reason(taken) == (409, "AlreadyExists")
    assert taken.json()["message"] == 'services.serving.knative.dev "hello" already exists'
    nameless = service()
    del nameless["metadata"]["name"]
    assert reason(await api.client.post(SERVICES, json=nameless)) == (422, "Invalid")


async def test_a_generated_name_is_the_prefix_and_five_letters(api: Running, config_map: Make) -> None:
    body = config_map()
    body["metadata"] = {"generateName": "made-"}
    first = (await api.client.post(CONFIG_MAPS, json=body)).json()["metadata"]["name"]
    second = (await api.client.post(CONFIG_MAPS, json=body)).json()["metadata"]["name"]
    assert first != second
    assert first.startswith("made-")
    assert len(first) == len("made-") + 5


async def test_a_stale_replacement_is_a_conflict_and_one_without_version_is_not(api: Running, config_map: Make) -> None:
    first = (await api.client.post(CONFIG_MAPS, json=config_map())).json()
    second = await api.client.put(f"{CONFIG_MAPS}/settings", json={**first, "data": {"colour": "blue"}})
    assert second.status_code == 200
    stale = await api.client.put(f"{CONFIG_MAPS}/settings", json={**first, "data": {"colour": "green"}})
    assert reason(stale) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in stale.json()["message"]
    whatever = await api.client.put(f"{CONFIG_MAPS}/settings", json=config_map(data={"colour": "white"}))
    assert whatever.status_code == 200
    assert whatever.json()["data"] == {"colour": "white"}
    assert whatever.json()["metadata"]["uid"] == first["metadata"]["uid"]


async def test_replacing_what_is_not_there_is_not_found(api: Running, config_map: Make) -> None:
    assert reason(await api.client.put(f"{CONFIG_MAPS}/settings", json=config_map())) == (404, "NotFound")


async def test_a_replacement_of_an_earlier_incarnation_is_a_conflict(api: Running, config_map: Make) -> None:
    first = (await api.client.post(CONFIG_MAPS, json=config_map())).json()
    await api.client.delete(f"{CONFIG_MAPS}/settings")
    await api.client.post(CONFIG_MAPS, json=config_map())
    del first["metadata"]["resourceVersion"]
    assert reason(await api.client.put(f"{CONFIG_MAPS}/settings", json=first)) == (409, "Conflict")


async def test_a_write_that_changes_nothing_makes_no_version(api: Running, service: Make) -> None:
    first = (await api.client.post(SERVICES, json=service())).json()
    again = (await api.client.put(f"{SERVICES}/hello", json=first)).json()
    assert again == first
    patched = await api.client.patch(
        f"{SERVICES}/hello",
        json={"spec": service()["spec"]},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert patched.json() == first


async def test_only_a_changed_spec_counts_the_generation_up(api: Running, service: Make) -> None:
    await api.client.post(SERVICES, json=service())
    merge = {"Content-Type": "application/merge-patch+json"}
    labelled = await api.client.patch(f"{SERVICES}/hello", json={"metadata": {"labels": {"a": "b"}}}, headers=merge)
    assert labelled.json()["metadata"]["generation"] == 1
    body = labelled.json()
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/hello:v2"
    changed = await api.client.put(f"{SERVICES}/hello", json=body)
    assert changed.json()["metadata"]["generation"] == 2


async def test_clients_cannot_write_what_is_the_servers(api: Running, service: Make) -> None:
    body = service(uid="mine", creationTimestamp="2000-01-01T00:00:00Z", generation=7, deletionTimestamp="x")
    body["status"] = {"url": "http://elsewhere"}
    made = (await api.client.post(SERVICES, json=body)).json()
    assert "status" not in made
    assert made["metadata"]["uid"] != "mine"
    assert made["metadata"]["generation"] == 1
    assert "deletionTimestamp" not in made["metadata"]
    # `status: {}` and `creationTimestamp: null` are noise of the Go clients.
    noisy = service("noisy", creationTimestamp=None)
    noisy["status"] = {}
    assert (await api.client.post(SERVICES, json=noisy)).status_code == 201


async def test_status_is_written_at_its_own_path_and_nothing_else_there(api: Running, service: Make) -> None:
    made = (await api.client.post(SERVICES, json=service())).json()
    body = {**made, "status": {"url": "http://here"}, "metadata": {**made["metadata"], "labels": {"a": "b"}}}
    written = (await api.client.put(f"{SERVICES}/hello/status", json=body)).json()
    assert written["status"]["url"] == "http://here"
    assert "labels" not in written["metadata"]
    assert written["metadata"]["generation"] == 1
    without = {**written, "status": {}}
    kept = (await api.client.put(f"{SERVICES}/hello", json=without)).json()
    assert kept["status"]["url"] == "http://here"
    assert (await api.client.get(f"{SERVICES}/hello/status")).json() == kept


async def test_unknown_subresources_resources_and_methods_are_refused(api: Running, service: Make) -> None:
    await api.client.post(SERVICES, json=service())
    assert reason(await api.client.patch(f"{SERVICES}/hello/scale", json={"spec": {"replicas": 3}})) == (
        404,
        "NotFound",
    )
    missing = await api.client.get(f"{SERVICES}/hello/scale")
    assert missing.json()["details"] == {"name": "hello", "group": "serving.knative.dev", "kind": "services"}
    unknown = await api.client.get("/api/v1/namespaces/default/things")
    assert (unknown.status_code, unknown.json()["details"]) == (404, {})
    assert reason(await api.client.post(f"{SERVICES}/hello", json=service())) == (405, "MethodNotAllowed")
    assert reason(await api.client.post("/api/v1/namespaces/default/pods", json={})) == (405, "MethodNotAllowed")
    assert reason(await api.client.put(SERVICES, json=service())) == (405, "MethodNotAllowed")
    assert (await api.client.get(f"{SERVICES}/hello")).json()["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    "path",
    ["/apis/serving.knative.dev/v7/services", "/apis/eventing.knative.dev/v1/namespaces/default/brokers", "/nowhere",
     "/apis/eventing.knative.dev", "/apis/eventing.knative.dev/v1", "/apis/serving.knative.dev/v1/things", "/api/v2",
     "/openapi/v3/apis/unknown/v1"],
)  # fmt: skip
async def test_unknown_paths_and_groups_are_answered_as_kube_apiserver_does(api: Running, path: str) -> None:
    answer = await api.client.get(path)
    assert (answer.status_code, answer.text) == (404, "404 page not found\n")
    assert answer.headers["content-type"].startswith("text/plain")


async def test_an_invalid_or_existing_object_is_named_in_the_details(api: Running, service: Make) -> None:
    answer = await api.client.post("/api/v1/namespaces", json={"metadata": {"name": "a_b"}})
    assert reason(answer) == (422, "Invalid")
    assert answer.json()["details"]["name"] == "a_b"
    assert answer.json()["message"].startswith('Namespace "a_b" is invalid: ')
    await api.client.post(SERVICES, json=service())
    twice = await api.client.post(SERVICES, json=service())
    assert reason(twice) == (409, "AlreadyExists")
    assert twice.json()["details"] == {"name": "hello", "group": "serving.knative.dev", "kind": "services"}


@pytest.mark.parametrize("key", [".", "..", "..data", "..2026", "a/b", "a\nb", "", "a" * 254, "ä"])
@pytest.mark.parametrize("plural", ["configmaps", "secrets"])
async def test_keys_that_can_be_no_files_are_refused(api: Running, plural: str, key: str) -> None:
    body = {"metadata": {"name": "settings"}, "data": {key: "eA=="}}
    answer = await api.client.post(f"/api/v1/namespaces/default/{plural}", json=body)
    assert reason(answer) == (422, "Invalid")
    assert "Invalid value: " in answer.json()["message"]


async def test_a_claim_of_a_block_device_is_refused(api: Running) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Block"}
    body = {"metadata": {"name": "kept"}, "spec": spec}
    answer = await api.client.post("/api/v1/namespaces/default/persistentvolumeclaims", json=body)
    assert reason(answer) == (422, "Invalid")
    assert "instances have no block devices" in answer.json()["message"]


@pytest.mark.parametrize("path", [f"{SERVICES}/hello", f"{SERVICES}/hello/status"])
@pytest.mark.parametrize("form", ["put", "merge", "apply"])
async def test_a_foreign_uid_is_refused_at_once(api: Running, service: Make, path: str, form: str) -> None:
    made = (await api.client.post(SERVICES, json=service())).json()
    body = {**made, "metadata": {"name": "hello", "uid": "foreign"}}
    if form == "put":
        answer = await api.client.put(path, json=body)
    else:
        kind = "application/merge-patch+json" if form == "merge" else "application/apply-patch+yaml"
        body.pop("status", None)
        answer = await api.client.patch(
            path, params={"fieldManager": "me", "force": "true"} if form == "apply" else {}, json=body,
            headers={"Content-Type": kind},
        )  # fmt: skip
    assert reason(answer) == (409, "Conflict")
    assert answer.json()["message"] == (
        'Operation cannot be fulfilled on services.serving.knative.dev "hello": Precondition failed: UID in '
        f"precondition: foreign, UID in object meta: {made['metadata']['uid']}"
    )


async def test_a_namespace_that_does_not_exist_takes_no_objects(api: Running, config_map: Make) -> None:
    answer = await api.client.post("/api/v1/namespaces/nowhere/configmaps", json=config_map())
    assert reason(answer) == (404, "NotFound")
    assert 'namespaces "nowhere" not found' in answer.json()["message"]


async def test_another_namespace_name_kind_or_version_than_the_paths_is_refused(
    api: Running, service: Make, config_map: Make
) -> None:
    body: Any
    for body in (
        service(namespace="elsewhere"),
        config_map(),
        service(version="v1beta1"),
        {**service(), "kind": ""},
        {**service(), "metadata": []},
        [],
        "text",
        None,
    ):
        assert reason(await api.client.post(SERVICES, json=body)) == (400, "BadRequest"), body
    await api.client.post(SERVICES, json=service())
    other = await api.client.put(f"{SERVICES}/hello", json=service("other"))
    assert reason(other) == (400, "BadRequest")
    assert "does not match the name on the URL (hello)" in other.json()["message"]


async def test_two_writers_with_one_version_have_one_winner(api: Running, config_map: Make) -> None:
    first = (await api.client.post(CONFIG_MAPS, json=config_map())).json()
    answers = await asyncio.gather(
        *(api.client.put(f"{CONFIG_MAPS}/settings", json={**first, "data": {"n": str(n)}}) for n in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


async def test_patches_without_a_version_never_conflict(api: Running, config_map: Make) -> None:
    await api.client.post(CONFIG_MAPS, json=config_map())
    merge = {"Content-Type": "application/merge-patch+json"}
    answers = await asyncio.gather(
        *(
            api.client.patch(f"{CONFIG_MAPS}/settings", json={"data": {f"k{n}": str(n)}}, headers=merge)
            for n in range(20)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    data = (await api.client.get(f"{CONFIG_MAPS}/settings")).json()["data"]
    assert data == {"colour": "red", **{f"k{n}": str(n) for n in range(20)}}


async def test_a_patch_that_names_a_stale_version_is_a_conflict(api: Running, config_map: Make) -> None:
    first = (await api.client.post(CONFIG_MAPS, json=config_map())).json()
    merge = {"Content-Type": "application/merge-patch+json"}
    await api.client.patch(f"{CONFIG_MAPS}/settings", json={"data": {"a": "b"}}, headers=merge)
    patch = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"c": "d"}}
    assert reason(await api.client.patch(f"{CONFIG_MAPS}/settings", json=patch, headers=merge)) == (409, "Conflict")


async def test_a_json_patch_is_strict(api: Running, service: Make) -> None:
    await api.client.post(SERVICES, json=service(annotations={"example.com/a": "b"}))
    headers = {"Content-Type": "application/json-patch+json"}

    async def patch(*operations: Json) -> Any:
        return await api.client.patch(f"{SERVICES}/hello", json=list(operations), headers=headers)

    done = await patch({"op": "replace", "path": "/metadata/annotations/example.com~1a", "value": "c"})
    assert done.json()["metadata"]["annotations"]["example.com/a"] == "c"
    assert reason(await patch({"op": "remove", "path": "/metadata/labels/none"})) == (422, "Invalid")
    assert reason(await patch({"op": "replace", "path": "/spec/nothing", "value": 1})) == (422, "Invalid")
    assert reason(await patch({"op": "test", "path": "/metadata/name", "value": "x"})) == (422, "Invalid")
    assert reason(await patch({"op": "invent", "path": "/a"})) == (400, "BadRequest")
    added = await patch({"op": "add", "path": "/metadata/labels", "value": {"x": "y"}})
    assert added.json()["metadata"]["labels"] == {"x": "y"}


async def test_strategic_patches_are_for_core_kinds_only(api: Running, service: Make, config_map: Make) -> None:
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    await api.client.post(CONFIG_MAPS, json=config_map())
    done = await api.client.patch(f"{CONFIG_MAPS}/settings", json={"data": {"a": "b"}}, headers=headers)
    assert done.json()["data"] == {"colour": "red", "a": "b"}
    await api.client.post(SERVICES, json=service())
    refused = await api.client.patch(f"{SERVICES}/hello", json={"metadata": {}}, headers=headers)
    assert reason(refused) == (415, "UnsupportedMediaType")
    assert "application/merge-patch+json" in refused.json()["message"]


async def test_a_dry_run_validates_and_keeps_nothing(api: Running, service: Make, config_map: Make) -> None:
    dry = {"dryRun": "All"}
    assert (await api.client.post(CONFIG_MAPS, json=config_map(), params=dry)).status_code == 201
    assert (await api.client.get(f"{CONFIG_MAPS}/settings")).status_code == 404
    await api.client.post(CONFIG_MAPS, json=config_map())
    assert reason(await api.client.post(CONFIG_MAPS, json=config_map(), params=dry)) == (409, "AlreadyExists")
    changed = await api.client.put(f"{CONFIG_MAPS}/settings", json=config_map(data={"a": "b"}), params=dry)
    assert changed.json()["data"] == {"a": "b"}
    assert (await api.client.delete(f"{CONFIG_MAPS}/settings", params=dry)).status_code == 200
    assert (await api.client.get(f"{CONFIG_MAPS}/settings")).json()["data"] == {"colour": "red"}
    assert reason(await api.client.post(CONFIG_MAPS, json=config_map("x"), params={"dryRun": "Some"})) == (
        400,
        "BadRequest",
    )
    bad = config_map("bad", data={"a": 7})
    assert reason(await api.client.post(CONFIG_MAPS, json=bad, params=dry)) == (422, "Invalid")


async def test_the_gateway_can_be_looked_up(api: Running) -> None:
    gateway = (await api.client.get("/api/v1/namespaces/istio-system/services/istio-ingressgateway")).json()
    assert gateway["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.7"
    assert gateway["spec"]["ports"][0]["port"] == 80
    assert gateway["spec"]["ports"][0]["targetPort"] == api.settings.public_port
    secure = gateway["spec"]["ports"][1]
    assert (secure["port"], secure["nodePort"]) == (443, api.settings.public_https_port)


async def test_the_activator_can_be_looked_up(api: Running) -> None:
    slices = "/apis/discovery.k8s.io/v1/namespaces/knative-serving/endpointslices"
    selector = {"labelSelector": "kubernetes.io/service-name=activator-service"}
    (endpoint_slice,) = (await api.client.get(slices, params=selector)).json()["items"]
    assert endpoint_slice["endpoints"][0]["addresses"] == ["192.0.2.7"]
    assert endpoint_slice["ports"] == [{"name": "http", "port": api.settings.public_port, "protocol": "TCP"}]
    service = (await api.client.get("/api/v1/namespaces/knative-serving/services/activator-service")).json()
    assert service["spec"]["ports"][0]["port"] == 80


async def test_health_and_metrics_are_there(api: Running) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert (await api.client.get(path)).text == "ok"
    await api.client.get(SERVICES)
    metrics = (await api.client.get("/metrics")).text
    assert 'knoll_api_requests_total{code="200",resource="services.serving.knative.dev",verb="list"}' in metrics


async def test_a_status_in_a_write_to_the_object_is_ignored(api: Running, service: Make) -> None:
    made = (await api.client.post(SERVICES, json=service())).json()
    body = {**made, "status": {"url": "http://here", "fieldOfTomorrow": 1}}
    answer = await api.client.put(f"{SERVICES}/hello", json=body, params={"fieldValidation": "Strict"})
    assert answer.status_code == 200
    assert "status" not in answer.json()


async def test_an_unavailable_store_is_a_503_with_retry_after(settings: ApiSettings) -> None:
    async with connected(f"redis://127.0.0.1:{free_port()}/0", "test") as redis:
        app = TrustedPort(create_app(RedisStore(redis), settings))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path in (SERVICES, f"{SERVICES}/hello", "/readyz"):
                answer = await client.get(path)
                assert reason(answer) == (503, "ServiceUnavailable")
                assert answer.headers["retry-after"] == "1"
            assert (await client.get("/healthz")).status_code == 200


async def test_an_error_of_our_own_is_a_500_status(settings: ApiSettings) -> None:
    class Broken(MemoryStore):
        async def get(self, resource: str, namespace: str, name: str) -> Json:
            raise ZeroDivisionError

    transport = httpx.ASGITransport(app=TrustedPort(create_app(Broken(), settings)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get(f"{SERVICES}/hello")
    assert reason(answer) == (500, "InternalError")
    assert "ZeroDivisionError" in answer.json()["message"]
