"""Server-side apply over HTTP."""

from typing import Any

from knoll.values.json import Json
from tests.component.api.conftest import CONFIG_MAPS, SERVICES, Make, Running

PATH = f"{CONFIG_MAPS}/settings"


async def apply(api: Running, body: Any, manager: str = "one", path: str = PATH, **parameters: str) -> Any:
    headers = {"Content-Type": "application/apply-patch+yaml"}
    parameters = {"fieldManager": manager, **parameters}
    return await api.client.patch(path, json=body, params=parameters, headers=headers)


def owners(body: Json) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in body["metadata"].get("managedFields", ())}


async def test_applying_creates_then_updates_then_changes_nothing(api: Running, config_map: Make) -> None:
    made = await apply(api, config_map())
    assert made.status_code == 201
    assert owners(made.json()) == {"one": {"f:data": {"f:colour": {}}}}
    changed = await apply(api, config_map(data={"colour": "blue"}))
    assert changed.status_code == 200
    assert changed.json()["data"] == {"colour": "blue"}
    assert (await apply(api, config_map(data={"colour": "blue"}))).json() == changed.json()


async def test_a_field_that_is_no_longer_applied_is_removed(api: Running, config_map: Make) -> None:
    await apply(api, config_map(data={"a": "1", "b": "2"}))
    await apply(api, config_map(data={"c": "3"}), "two")
    assert (await apply(api, config_map(data={"a": "1"}))).json()["data"] == {"a": "1", "c": "3"}


async def test_a_field_of_two_appliers_stays_until_both_drop_it(api: Running, config_map: Make) -> None:
    await apply(api, config_map(data={"a": "1", "b": "2"}))
    assert (await apply(api, config_map(data={"a": "1"}), "two")).status_code == 200
    assert (await apply(api, config_map(data={"b": "2"}))).json()["data"] == {"a": "1", "b": "2"}
    assert (await apply(api, config_map(data={}), "two")).json()["data"] == {"b": "2"}


async def test_a_conflict_names_manager_and_field_and_force_takes_it(api: Running, config_map: Make) -> None:
    await apply(api, config_map(data={"a": "1", "b": "2"}))
    refused = await apply(api, config_map(data={"a": "9", "b": "9"}), "two")
    assert refused.status_code == 409
    assert refused.json()["reason"] == "Conflict"
    causes = refused.json()["details"]["causes"]
    assert [(cause["reason"], cause["field"]) for cause in causes] == [
        ("FieldManagerConflict", ".data.a"),
        ("FieldManagerConflict", ".data.b"),
    ]
    assert (await api.client.get(PATH)).json()["data"] == {"a": "1", "b": "2"}
    taken = (await apply(api, config_map(data={"a": "9"}), "two", force="true")).json()
    assert taken["data"] == {"a": "9", "b": "2"}
    assert owners(taken) == {"one": {"f:data": {"f:b": {}}}, "two": {"f:data": {"f:a": {}}}}


async def test_a_plain_write_takes_the_fields_it_changes(api: Running, config_map: Make) -> None:
    made = (await apply(api, config_map(data={"a": "1", "b": "2"}))).json()
    made["data"]["a"] = "7"
    written = await api.client.put(PATH, json=made, params={"fieldManager": "editor"})
    assert owners(written.json()) == {"one": {"f:data": {"f:b": {}}}, "editor": {"f:data": {"f:a": {}}}}
    assert (await apply(api, config_map(data={"a": "1", "b": "2"}))).status_code == 409


async def test_what_was_there_before_the_first_apply_has_an_owner(api: Running, config_map: Make) -> None:
    await api.client.post(CONFIG_MAPS, json=config_map(data={"a": "1"}))
    refused = await apply(api, config_map(data={"a": "2"}))
    assert "before-first-apply" in refused.json()["message"]
    assert (await apply(api, config_map(data={"b": "2"}))).json()["data"] == {"a": "1", "b": "2"}


async def test_defaults_make_no_conflict_when_nothing_would_change(api: Running, service: Make) -> None:
    await api.client.post(SERVICES, json=service())
    applied = await apply(api, service(), path=f"{SERVICES}/hello")
    assert applied.status_code == 200, applied.text
    assert applied.json()["metadata"]["generation"] == 1


async def test_ownership_can_be_dropped_and_never_sent_in_an_apply(api: Running, config_map: Make) -> None:
    made = (await apply(api, config_map())).json()
    refused = await apply(api, made)
    assert refused.status_code == 400
    assert "managedFields must be nil" in refused.json()["message"]
    made["metadata"]["managedFields"] = [{}]
    assert "managedFields" not in (await api.client.put(PATH, json=made)).json()["metadata"]


async def test_an_incomplete_apply_is_refused_with_what_is_missing(api: Running, config_map: Make) -> None:
    without_manager = await apply(api, config_map(), "")
    assert without_manager.status_code == 400
    assert "fieldManager" in without_manager.json()["message"]
    forced = await api.client.patch(
        PATH, json={}, params={"force": "true"}, headers={"Content-Type": "application/merge-patch+json"}
    )
    assert forced.status_code == 400


async def test_a_dry_apply_keeps_nothing(api: Running, config_map: Make) -> None:
    assert (await apply(api, config_map(), dryRun="All")).status_code == 201
    assert (await api.client.get(PATH)).status_code == 404


async def test_status_can_be_applied_apart(api: Running, service: Make) -> None:
    await apply(api, service(), path=f"{SERVICES}/hello")
    intent = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "status": {"url": "http://hello"},
    }
    written = (await apply(api, intent, "controller", path=f"{SERVICES}/hello/status")).json()
    assert written["status"]["url"] == "http://hello"
    entry = next(entry for entry in written["metadata"]["managedFields"] if entry["manager"] == "controller")
    assert entry["subresource"] == "status"
    assert (await apply(api, service(), path=f"{SERVICES}/hello")).json()["status"]["url"] == "http://hello"
