"""Clients that wait as `kn` does: a failure must never be the first thing that they see of a new generation."""

import asyncio
from typing import Any

import pytest

from api.controllers.reconciler import objects
from knoll.store.redis_store import RedisStore
from knoll.values import kinds
from knoll.values.json import Json
from tests.component.controllers.test_controllers import Platform, platform

pytestmark = pytest.mark.redis
__all__ = ["platform"]
TRIES = 20


async def waited(store: RedisStore, name: str) -> tuple[str, str]:
    """What `kn` prints after a write: it reads the Service, and then reacts to events of type MODIFIED alone.

    Source: knative/client, pkg/serving/v1/client.go and pkg/wait/wait_for_ready.go.
    """
    body = await store.get(kinds.SERVICE.id, "default", name)
    if objects.is_ready(body):
        return "True", ""
    async for event in store.watch(int(body["metadata"]["resourceVersion"]), {kinds.SERVICE.id}):
        if event.type != "MODIFIED" or event.body["metadata"]["name"] != name or not objects.observed(event.body):
            continue
        condition = objects.condition(event.body) or {}
        if condition.get("status") in ("True", "False"):
            return condition["status"], condition.get("message", "")
    raise AssertionError("the watch ended")


async def outcomes(platform: Platform, write: Any) -> list[tuple[str, str]]:
    async def wait_for_one(index: int) -> tuple[str, str]:
        await write(index)
        for _ in range(index % 5 * 4):  # clients are not equally quick to read
            await platform.get(kinds.SERVICE, f"hello-{index}")
        return await waited(platform.store, f"hello-{index}")

    async with asyncio.timeout(30):
        return await asyncio.gather(*(wait_for_one(index) for index in range(TRIES)))


async def test_an_update_to_an_image_that_does_not_exist_is_reported(platform: Platform) -> None:
    platform.edge.start()
    platform.edge.missing.add("img:missing")
    ready = await outcomes(platform, lambda index: platform.apply(f"hello-{index}"))
    assert {status for status, _ in ready} == {"True"}
    failed = await outcomes(platform, lambda index: platform.apply(f"hello-{index}", image="img:missing"))
    assert {status for status, _ in failed} == {"False"}
    assert all("MANIFEST_UNKNOWN" in message for _, message in failed)


async def test_each_new_generation_of_a_failed_service_is_reported_again(platform: Platform) -> None:
    platform.edge.start()
    platform.edge.missing |= {"img:missing", "img:lost"}
    first = await outcomes(platform, lambda index: platform.apply(f"hello-{index}", image="img:missing"))
    second = await outcomes(platform, lambda index: platform.apply(f"hello-{index}", image="img:lost"))
    assert {status for status, _ in (*first, *second)} == {"False"}
    assert all("img:lost" in message for _, message in second)


async def test_a_failure_that_needs_no_look_up_is_reported(platform: Platform) -> None:
    """A Configuration of the Service's name that belongs to another object is known at the first look."""
    platform.edge.start()
    for index in range(TRIES):
        await platform.store.create(kinds.CONFIGURATION.id, foreign(f"hello-{index}"))
    failed = await outcomes(platform, lambda index: platform.apply(f"hello-{index}"))
    assert {status for status, _ in failed} == {"False"}


def foreign(name: str) -> Json:
    template = {"spec": {"containers": [{"name": "user-container", "image": "img"}]}}
    meta = {"name": name, "namespace": "default", "uid": f"foreign-{name}", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
    kind = kinds.CONFIGURATION
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": {"template": template}}
