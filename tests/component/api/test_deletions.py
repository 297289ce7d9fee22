"""Deletions over HTTP: preconditions, finalizers, owners and collections."""

import pytest

from tests.component.api.conftest import CONFIG_MAPS, Make, Running, reason


async def test_a_deletion_answers_success_and_honours_preconditions(api: Running, config_map: Make) -> None:
    made = (await api.client.post(CONFIG_MAPS, json=config_map())).json()
    other = {"preconditions": {"uid": "other"}}
    refused = await api.client.request("DELETE", f"{CONFIG_MAPS}/settings", json=other)
    assert reason(refused) == (409, "Conflict")
    done = await api.client.request("DELETE", f"{CONFIG_MAPS}/settings", json={"propagationPolicy": "Background"})
    assert done.json()["status"] == "Success"
    assert done.json()["details"]["uid"] == made["metadata"]["uid"]
    assert reason(await api.client.delete(f"{CONFIG_MAPS}/settings")) == (404, "NotFound")


async def test_finalizers_hold_an_object_until_they_are_taken_away(api: Running, config_map: Make) -> None:
    await api.client.post(CONFIG_MAPS, json=config_map(finalizers=["example.com/hold"]))
    held = (await api.client.delete(f"{CONFIG_MAPS}/settings")).json()
    assert held["metadata"]["deletionTimestamp"]
    merge = {"Content-Type": "application/merge-patch+json"}
    more = await api.client.patch(
        f"{CONFIG_MAPS}/settings",
        json={"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}},
        headers=merge,
    )
    assert reason(more) == (422, "Invalid")
    await api.client.patch(f"{CONFIG_MAPS}/settings", json={"metadata": {"finalizers": None}}, headers=merge)
    assert (await api.client.get(f"{CONFIG_MAPS}/settings")).status_code == 404


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_an_owner_is_held_for_what_it_owns(api: Running, config_map: Make, policy: str, finalizer: str) -> None:
    owner = (await api.client.post(CONFIG_MAPS, json=config_map("owner"))).json()
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    await api.client.post(CONFIG_MAPS, json=config_map("owned", ownerReferences=[reference]))
    held = await api.client.request("DELETE", f"{CONFIG_MAPS}/owner", json={"propagationPolicy": policy})
    assert held.json()["metadata"]["finalizers"] == [finalizer]
    assert held.json()["metadata"]["deletionTimestamp"]
    free = await api.client.request("DELETE", f"{CONFIG_MAPS}/owned", json={"propagationPolicy": policy})
    assert free.json()["status"] == "Success"


async def test_a_collection_is_deleted_by_its_selector(api: Running, config_map: Make) -> None:
    for name, label in {"a": "x", "b": "y", "c": "x"}.items():
        await api.client.post(CONFIG_MAPS, json=config_map(name, labels={"l": label}))
    gone = (await api.client.delete(CONFIG_MAPS, params={"labelSelector": "l=x"})).json()
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "c"]
    left = (await api.client.get(CONFIG_MAPS)).json()["items"]
    assert [item["metadata"]["name"] for item in left] == ["b"]
