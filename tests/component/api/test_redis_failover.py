"""The API on a Redis whose primary dies: clients get 503 for a moment, their watches end, nothing is lost."""

import asyncio
import itertools
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.component.api.processes import ApiProcess
from tests.conftest import need
from tests.redis_group import RedisGroup, running
from tests.waiting import eventually

pytestmark = pytest.mark.redis
PATH = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[RedisGroup]:
    need("REDIS", shutil.which("redis-server") is not None)
    with running(tmp_path) as servers:
        yield servers


async def create(client: httpx.AsyncClient, name: str) -> dict[str, Any] | None:
    """Create a ConfigMap; None when the API answers that its storage is unavailable."""
    response = await client.post(PATH, json={"metadata": {"name": name}})
    if response.status_code == 503:
        return None
    assert response.status_code in (201, 409), response.text
    return response.json() if response.status_code == 201 else {}


async def test_a_client_continues_after_listing_again(group: RedisGroup, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    async def watch(client: httpx.AsyncClient, version: str) -> None:
        parameters = {"watch": "1", "resourceVersion": version}
        async with client.stream("GET", PATH, params=parameters, timeout=60) as response:
            async for line in response.aiter_lines():
                events.append(json.loads(line))

    with ApiProcess(group.url(), tmp_path) as api:
        async with httpx.AsyncClient(base_url=api.url, timeout=10) as client:
            assert await create(client, "before")
            listed = (await client.get(PATH)).json()
            watching = asyncio.create_task(watch(client, listed["metadata"]["resourceVersion"]))
            await create(client, "seen")
            await eventually(lambda: [event["type"] for event in events] == ["ADDED"])
            group.signal(0, signal.SIGKILL)
            assert await create(client, "refused") is None
            # Under another name each time: a create that failed with 503 may have happened.
            numbers = itertools.count()
            made = await eventually(lambda: create(client, f"after-{next(numbers)}"), condition="a write")
            assert made is not None
            await watching
            assert (events[-1]["type"], events[-1]["object"]["code"]) == ("ERROR", 410)
            again = (await client.get(PATH)).json()
            names = {item["metadata"]["name"] for item in again["items"]}
            assert {"before", "seen", made["metadata"]["name"]} <= names
            assert int(again["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
            assert (
                int(made["metadata"]["resourceVersion"]) > int(events[-2]["object"]["metadata"]["resourceVersion"]) + 1
            )
            # The controllers lead again: a new namespace gets its default objects.
            assert (await client.post("/api/v1/namespaces", json={"metadata": {"name": "later"}})).status_code == 201

            async def has_account() -> bool:
                response = await client.get("/api/v1/namespaces/later/serviceaccounts/default")
                return response.status_code == 200

            await eventually(has_account)
