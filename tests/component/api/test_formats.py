"""The forms in which objects are sent and returned: JSON, YAML, tables, metadata alone, older versions."""

import pytest

from tests.component.api.conftest import CONFIG_MAPS, SERVICES, Make, Running, reason


async def test_unknown_fields_are_refused_warned_of_or_ignored(api: Running, service: Make) -> None:
    body = service()
    body["spec"]["template"]["spec"]["containers"][0]["imagee"] = "typo"
    path = 'unknown field "spec.template.spec.containers[0].imagee"'
    strict = await api.client.post(SERVICES, json=body, params={"fieldValidation": "Strict"})
    assert reason(strict) == (400, "BadRequest")
    assert path in strict.json()["message"]
    warned = await api.client.post(SERVICES, json=body, params={"fieldValidation": "Warn", "dryRun": "All"})
    assert warned.headers["warning"].startswith("299 - ")
    assert "imagee" in warned.headers["warning"]
    ignored = await api.client.post(SERVICES, json=body, params={"fieldValidation": "Ignore"})
    assert "warning" not in ignored.headers
    assert "imagee" not in ignored.text


async def test_repeated_fields_are_found_in_json_and_yaml(api: Running) -> None:
    strict = {"fieldValidation": "Strict"}
    json_text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","x":"2"}}'
    answer = await api.client.post(
        CONFIG_MAPS, content=json_text, params=strict, headers={"Content-Type": "application/json"}
    )
    assert reason(answer) == (400, "BadRequest")
    assert 'duplicate field "x"' in answer.json()["message"]
    yaml_text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: '1'\n  x: '2'\n"
    answer = await api.client.post(
        CONFIG_MAPS, content=yaml_text, params=strict, headers={"Content-Type": "application/yaml"}
    )
    assert reason(answer) == (400, "BadRequest")
    assert 'duplicate field "data.x"' in answer.json()["message"]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/yaml", "", "text/plain"])
async def test_yaml_is_taken_as_curl_sends_it(api: Running, content_type: str) -> None:
    text = (
        "# a comment\n---\napiVersion: serving.knative.dev/v1alpha1\nkind: Service\nmetadata:\n  name: hello\n"
        "spec:\n  template:\n    spec:\n      containers:\n      - image: registry.example/hello:v1\n"
    )
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await api.client.post(SERVICES.replace("v1/", "v1alpha1/"), content=text.encode(), headers=headers)
    assert answer.status_code == 201
    assert answer.json()["apiVersion"] == "serving.knative.dev/v1alpha1"
    assert (await api.client.get(f"{SERVICES}/hello")).json()["apiVersion"] == "serving.knative.dev/v1"


async def test_several_documents_and_foreign_types_are_refused_with_a_hint(api: Running) -> None:
    two = "apiVersion: v1\nkind: ConfigMap\n---\napiVersion: v1\nkind: ConfigMap\n"
    answer = await api.client.post(CONFIG_MAPS, content=two, headers={"Content-Type": "application/yaml"})
    assert reason(answer) == (400, "BadRequest")
    assert "2 YAML documents" in answer.json()["message"]
    answer = await api.client.post(CONFIG_MAPS, content="<a/>", headers={"Content-Type": "application/xml"})
    assert reason(answer) == (415, "UnsupportedMediaType")
    answer = await api.client.post(CONFIG_MAPS, content="{", headers={"Content-Type": "application/json"})
    assert reason(answer) == (400, "BadRequest")
    broken = "a: [\nb: }"
    answer = await api.client.post(CONFIG_MAPS, content=broken, headers={"Content-Type": "application/yaml"})
    assert reason(answer) == (400, "BadRequest")
    assert "line 2" in answer.json()["message"]


async def test_a_body_over_the_bound_is_refused(api: Running) -> None:
    answer = await api.client.post(
        CONFIG_MAPS, content=b"x" * (3 * 1024 * 1024 + 1), headers={"Content-Type": "application/json"}
    )
    assert reason(answer) == (413, "RequestEntityTooLarge")


async def test_old_versions_are_answered_in_their_own_version(api: Running, service: Make) -> None:
    old = SERVICES.replace("v1/", "v1beta1/")
    made = await api.client.post(old, json=service(version="v1beta1"))
    assert made.json()["apiVersion"] == "serving.knative.dev/v1beta1"
    listing = (await api.client.get(old)).json()
    assert listing["apiVersion"] == "serving.knative.dev/v1beta1"
    assert listing["items"][0]["apiVersion"] == "serving.knative.dev/v1beta1"
    assert (await api.client.get(SERVICES)).json()["items"][0]["apiVersion"] == "serving.knative.dev/v1"


async def test_a_table_has_the_printed_columns(api: Running, service: Make) -> None:
    await api.client.post(SERVICES, json=service())
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = (await api.client.get(SERVICES, headers=headers)).json()
    assert table["kind"] == "Table"
    names = [column["name"] for column in table["columnDefinitions"]]
    assert names == ["Name", "URL", "LatestCreated", "LatestReady", "Ready", "Reason"]
    assert table["rows"][0]["cells"][0] == "hello"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = await api.client.get(SERVICES, headers=headers, params={"includeObject": "Object"})
    assert whole.json()["rows"][0]["object"]["spec"]


async def test_answers_can_be_yaml_or_metadata_only_and_nothing_else(api: Running, service: Make) -> None:
    await api.client.post(SERVICES, json=service())
    yaml = await api.client.get(f"{SERVICES}/hello", headers={"Accept": "application/yaml"})
    assert yaml.text.startswith("apiVersion: serving.knative.dev/v1\n")
    partial = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    listing = (await api.client.get(SERVICES, headers=partial)).json()
    assert listing["kind"] == "PartialObjectMetadataList"
    assert set(listing["items"][0]) == {"kind", "apiVersion", "metadata"}
    assert reason(await api.client.get(SERVICES, headers={"Accept": "text/html"})) == (406, "NotAcceptable")
