"""Namespaces: the objects in one are deleted with it."""

import asyncio

import pytest

from api.resource import bootstrap
from api.resource.namespaces import CONTENTS
from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from tests.component.api.conftest import Make, Running
from tests.waiting import eventually

NAMESPACES = "/api/v1/namespaces"


def namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def gone(api: Running, path: str) -> bool:
    return (await api.client.get(path)).status_code == 404


async def test_a_deleted_namespace_takes_everything_in_it_along(api: Running, service: Make, config_map: Make) -> None:
    assert (await api.client.post(NAMESPACES, json=namespace("team"))).status_code == 201
    for path, body in (("configmaps", config_map()), ("secrets", {**config_map(), "kind": "Secret", "data": {}})):
        assert (await api.client.post(f"{NAMESPACES}/team/{path}", json=body)).status_code == 201
    services = "/apis/serving.knative.dev/v1/namespaces/team/services"
    assert (await api.client.post(services, json=service())).status_code == 201
    ending = (await api.client.delete(f"{NAMESPACES}/team")).json()
    assert ending["metadata"]["deletionTimestamp"]
    assert ending["metadata"]["finalizers"] == [CONTENTS]
    assert ending["status"]["phase"] == "Terminating"
    await eventually(lambda: gone(api, f"{NAMESPACES}/team"), condition="the end of the namespace")
    assert (await api.client.get("/api/v1/secrets")).json()["items"] == []
    assert (await api.client.get("/apis/serving.knative.dev/v1/services")).json()["items"] == []
    assert (await api.client.post(NAMESPACES, json=namespace("team"))).status_code == 201


async def test_nothing_new_comes_into_a_namespace_that_ends(api: Running, config_map: Make) -> None:
    await api.client.post(NAMESPACES, json=namespace("team"))
    await api.client.post(f"{NAMESPACES}/team/configmaps", json=config_map(finalizers=["example.com/hold"]))
    await api.client.delete(f"{NAMESPACES}/team")
    refused = await api.client.post(f"{NAMESPACES}/team/configmaps", json=config_map("late"))
    assert refused.status_code == 403
    assert "because it is being terminated" in refused.json()["message"]
    release = [{"op": "remove", "path": "/metadata/finalizers"}]
    headers = {"Content-Type": "application/json-patch+json"}

    async def released() -> bool:
        path = f"{NAMESPACES}/team/configmaps/settings"
        return (await api.client.patch(path, json=release, headers=headers)).status_code == 200

    await eventually(released)
    await eventually(lambda: gone(api, f"{NAMESPACES}/team"), condition="the end of the namespace")


@pytest.mark.parametrize("name", ["default", "knative-serving", "istio-system", "kube-system"])
async def test_the_platforms_own_namespaces_stay(api: Running, name: str) -> None:
    refused = await api.client.delete(f"{NAMESPACES}/{name}")
    assert refused.status_code == 403
    assert refused.json()["reason"] == "Forbidden"


@pytest.mark.redis
async def test_what_must_be_there_comes_back_when_redis_has_lost_it(redis_url: str, settings: ApiSettings) -> None:
    async with connected(redis_url, "test") as redis:
        store = RedisStore(redis)
        keeping = asyncio.create_task(bootstrap.ensure(store, settings))

        async def complete() -> bool:
            names = [body["metadata"]["name"] for body in (await store.list("namespaces")).items]
            gateways = (await store.list("services", "istio-system")).items
            configs = (await store.list("configmaps", "knative-serving")).items
            return names == sorted(bootstrap.NAMESPACES) and len(gateways) == 1 and len(configs) >= 8

        await eventually(complete, condition="the first objects")
        await redis.execute("FLUSHALL")
        await eventually(complete, condition="the first objects, again")
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await store.close()
