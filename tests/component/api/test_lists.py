"""Lists over HTTP: order, pages, selectors and versions."""

import pytest

from knoll.values.json import Json
from tests.component.api.conftest import CONFIG_MAPS, SERVICES, Make, Running, reason


async def test_a_list_has_the_kind_the_version_and_its_objects_in_order(api: Running, service: Make) -> None:
    for name in ("beta", "alpha"):
        await api.client.post(SERVICES, json=service(name))
    listing = (await api.client.get(SERVICES)).json()
    assert listing["kind"] == "ServiceList"
    assert listing["apiVersion"] == "serving.knative.dev/v1"
    assert int(listing["metadata"]["resourceVersion"]) > 0
    assert [item["metadata"]["name"] for item in listing["items"]] == ["alpha", "beta"]
    everywhere = (await api.client.get("/apis/serving.knative.dev/v1/services")).json()
    assert everywhere["items"] == listing["items"]


async def test_pages_hold_every_object_once(api: Running, config_map: Make) -> None:
    for number in range(7):
        await api.client.post(CONFIG_MAPS, json=config_map(f"m{number}"))
    names: list[str] = []
    token = ""
    versions = set()
    while True:
        page = (await api.client.get(CONFIG_MAPS, params={"limit": 3, "continue": token})).json()
        names += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
        assert page["metadata"]["remainingItemCount"] == 7 - len(names)
    assert names == [f"m{number}" for number in range(7)]
    assert len(versions) == 1


@pytest.mark.parametrize(
    ("parameters", "selected"),
    [
        ({"labelSelector": "tier=web"}, ["a", "b"]),
        ({"labelSelector": "tier in (web,db),!old"}, ["a", "c"]),
        ({"labelSelector": "tier notin (web)"}, ["c", "d"]),
        ({"labelSelector": "old"}, ["b"]),
        ({"fieldSelector": "metadata.name=c"}, ["c"]),
        ({"fieldSelector": "metadata.name!=c", "labelSelector": "tier"}, ["a", "b"]),
        ({"fieldSelector": "metadata.namespace=elsewhere"}, []),
    ],
)
async def test_selectors_select(api: Running, config_map: Make, parameters: Json, selected: list[str]) -> None:
    for name, labels in {"a": {"tier": "web"}, "b": {"tier": "web", "old": ""}, "c": {"tier": "db"}, "d": {}}.items():
        await api.client.post(CONFIG_MAPS, json=config_map(name, labels=labels))
    listing = (await api.client.get(CONFIG_MAPS, params=parameters)).json()
    assert [item["metadata"]["name"] for item in listing["items"]] == selected


@pytest.mark.parametrize(
    "parameters",
    [
        {"labelSelector": "a in b"},
        {"labelSelector": "=,"},
        {"fieldSelector": "spec.colour=red"},
        {"limit": "many"},
        {"continue": "xxx"},
        {"resourceVersion": "first"},
        {"resourceVersionMatch": "Exact"},
        {"watch": "perhaps"},
    ],
)
async def test_parameters_that_make_no_sense_are_refused(api: Running, parameters: Json) -> None:
    assert reason(await api.client.get(CONFIG_MAPS, params=parameters)) == (400, "BadRequest")


async def test_a_list_from_the_future_is_refused_and_an_exact_one_of_the_past_expired(
    api: Running, config_map: Make
) -> None:
    now = int((await api.client.get(CONFIG_MAPS)).json()["metadata"]["resourceVersion"])
    await api.client.post(CONFIG_MAPS, json=config_map())
    later = await api.client.get(CONFIG_MAPS, params={"resourceVersion": str(now + 1000)})
    assert reason(later) == (504, "Timeout")
    exact = {"resourceVersion": str(now), "resourceVersionMatch": "Exact"}
    assert reason(await api.client.get(CONFIG_MAPS, params=exact)) == (410, "Expired")
