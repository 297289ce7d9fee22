"""Watches and followed logs end with the right to them; their number and their time are bounded."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from api.wire import options
from knoll.auth import token_key, tokens
from knoll.config.platform import PlatformConfig
from knoll.process.settings import ApiSettings
from knoll.redis import keys
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from knoll.values.kinds import SERVICE_ACCOUNT
from tests.component.api.conftest import CONFIG_MAPS, Running, serving
from tests.component.api.lines import Lines, watching

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
BINDING = f"{RBAC}/namespaces/default/rolebindings/robot"
BUILDS = "/apis/build.knoll.dev/v1alpha1/namespaces/default/builds"

pytestmark = pytest.mark.redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    async with connected(redis_url, "test") as redis:
        yield redis


@pytest.fixture
async def api(redis: RedisClient, settings: ApiSettings) -> AsyncIterator[Running]:
    config = PlatformConfig().with_config_map(
        "config-security", {"max-streams-per-user": "16", "max-requests-per-user": "16"}
    )
    store = RedisStore(redis)
    async with serving(store, settings, redis, config=lambda: config) as running:
        yield running
    await store.close()


def binding(role: str) -> Json:
    subject = {"kind": "ServiceAccount", "namespace": "default", "name": "robot"}
    return {
        "metadata": {"name": "robot"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


async def token(api: Running, redis: RedisClient, seconds: int = 3600) -> str:
    """Of the ServiceAccount `robot`, valid for so long from now on."""
    account = await api.store.get(SERVICE_ACCOUNT.id, "default", "robot")
    key, now = await token_key.shared_key(redis), time.time()
    begun = now - 3600 + seconds
    return tokens.mint(key, namespace="default", name="robot", uid=account["metadata"]["uid"], now=begun)


@asynccontextmanager
async def robot(api: Running, redis: RedisClient, seconds: int = 3600, role: str = "view") -> AsyncIterator[Any]:
    """A client that is a ServiceAccount with a role in `default`."""
    assert (await api.client.post(ACCOUNTS, json={"metadata": {"name": "robot"}})).status_code == 201
    made = await api.client.post(BINDING.removesuffix("/robot"), json=binding(role))
    assert made.status_code == 201, made.text
    headers = {"Authorization": f"Bearer {await token(api, redis, seconds)}"}
    async with httpx.AsyncClient(base_url=api.url, timeout=30, headers=headers) as client:
        yield client


async def end(lines: Lines) -> Json:
    """The error that a watch ends with."""
    *_, last = await lines.rest()
    assert last["type"] == "ERROR"
    status: Json = last["object"]
    return status


async def unbind(api: Running) -> None:
    assert (await api.client.delete(BINDING)).status_code == 200


async def lower(api: Running) -> None:
    expected = binding("view") | {"subjects": []}
    assert (await api.client.put(BINDING, json=expected)).status_code == 200


async def remove_account(api: Running) -> None:
    assert (await api.client.delete(f"{ACCOUNTS}/robot")).status_code == 200


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [(unbind, 403, "Forbidden"), (lower, 403, "Forbidden"), (remove_account, 401, "Unauthorized")],
)
async def test_a_watch_ends_with_the_right_to_it(
    api: Running, redis: RedisClient, change: Any, code: int, reason: str
) -> None:
    async with robot(api, redis) as client, watching(client, CONFIG_MAPS, resourceVersion="0") as lines:
        await change(api)
        status = await end(lines)
        assert (status["code"], status["reason"]) == (code, reason)
        made = await api.client.post(CONFIG_MAPS, json={"metadata": {"name": "after"}})
        assert made.status_code == 201
        assert (await client.get(CONFIG_MAPS)).status_code == code


async def test_a_watch_continues_when_other_rights_change(api: Running, redis: RedisClient) -> None:
    async with robot(api, redis) as client, watching(client, CONFIG_MAPS) as lines:
        other = {**binding("edit"), "metadata": {"name": "other"}}
        assert (await api.client.post(BINDING.removesuffix("/robot"), json=other)).status_code == 201
        assert (await api.client.delete(BINDING.replace("/robot", "/other"))).status_code == 200
        await api.client.post(CONFIG_MAPS, json={"metadata": {"name": "after"}})
        assert await lines.take(1) == [("ADDED", "after")]


async def test_a_watch_ends_with_its_token(api: Running, redis: RedisClient) -> None:
    async with robot(api, redis, 2) as client, watching(client, CONFIG_MAPS) as lines:
        assert (await end(lines))["reason"] == "Unauthorized"
        assert (await client.get(CONFIG_MAPS)).status_code == 401


async def test_the_administrator_s_own_watches_go_on(api: Running, redis: RedisClient) -> None:
    async with robot(api, redis), watching(api.client, CONFIG_MAPS) as lines:
        await unbind(api)
        await api.client.post(CONFIG_MAPS, json={"metadata": {"name": "after"}})
        assert await lines.take(1) == [("ADDED", "after")]


async def test_a_followed_log_ends_with_the_right_to_it(api: Running, redis: RedisClient) -> None:
    build = {
        "apiVersion": "build.knoll.dev/v1alpha1",
        "kind": "Build",
        "metadata": {"name": "b"},
        "spec": {"tag": "b:v1", "source": {"git": {"url": "https://example.com/b.git"}}},
    }
    made = await api.client.post(BUILDS, json=build)
    assert made.status_code == 201, made.text
    await redis.execute("XADD", keys.build_log("default", "b"), "*", "line", "first")
    async with (
        robot(api, redis) as client,
        client.stream("GET", f"{BUILDS}/b/log", params={"follow": "true"}) as answer,
    ):
        lines = answer.aiter_lines()
        await unbind(api)
        async with asyncio.timeout(30):
            text = [line async for line in lines]
        assert text[-1].startswith("the log ends: ")
        assert "cannot get resource" in text[-1]


async def test_a_user_has_so_many_watches_and_others_have_theirs(api: Running, redis: RedisClient) -> None:
    async with robot(api, redis) as client, AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(watching(client, CONFIG_MAPS))
        refused = await client.get(CONFIG_MAPS, params={"watch": "true"})
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["reason"] == "TooManyRequests"
        assert (await client.get(CONFIG_MAPS)).status_code == 200
        async with watching(api.client, CONFIG_MAPS):
            pass
        await stack.aclose()
        async with watching(client, CONFIG_MAPS):
            pass


@pytest.mark.parametrize("seconds", ["99999999999999", "604801", "-1", "1.5", "x", "1e3", "٣"])
async def test_an_invalid_timeout_is_refused(api: Running, seconds: str) -> None:
    answer = await api.client.get(CONFIG_MAPS, params={"watch": "true", "timeoutSeconds": seconds})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert "timeoutSeconds" in answer.json()["message"]


async def test_an_invalid_timeout_is_refused_for_a_list_too(api: Running) -> None:
    assert (await api.client.get(CONFIG_MAPS, params={"timeoutSeconds": "x"})).status_code == 400
    assert (await api.client.get(CONFIG_MAPS, params={"timeoutSeconds": "30"})).status_code == 200


@pytest.mark.parametrize(("asked", "least", "most"), [("", 1800, 3600), ("0", 1800, 3600), ("7", 7, 7)])
def test_every_watch_has_an_end(asked: str, least: int, most: int) -> None:
    watch_options = options.watch_options({"timeoutSeconds": asked}, "configmaps", chance=lambda: 0.25)
    assert watch_options.timeout is not None
    assert least <= watch_options.timeout <= most
