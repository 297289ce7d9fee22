"""An update that is given the current object: one round trip less, with the same guarantees."""

from collections.abc import AsyncIterator

import pytest

from knoll.redis.client import connected
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.values.errors import ConflictError, NotFoundError
from knoll.values.json import Json
from tests.doubles.memory_store import MemoryStore

pytestmark = pytest.mark.redis


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with connected(request.getfixturevalue("redis_url")) as redis:
        made = RedisStore(redis)
        yield made
        await made.close()


def thing(**spec: object) -> Json:
    return {"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": spec}


async def test_it_writes_and_returns_the_previous_value(store: Store) -> None:
    before = await store.create("things", thing(v=1))
    after = await store.update("things", {**before, "spec": {"v": 2}}, before=before)
    assert after["spec"] == {"v": 2}
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    assert await store.get("things", "n", "a") == after
    async for event in store.watch(int(before["metadata"]["resourceVersion"])):
        assert (event.type, event.body, event.before) == ("MODIFIED", after, before)
        break


async def test_one_that_is_not_the_newest_any_more_is_refused(store: Store) -> None:
    before = await store.create("things", thing(v=1))
    newer = await store.update("things", {**before, "spec": {"v": 2}})
    with pytest.raises(ConflictError):
        await store.update("things", {**before, "spec": {"v": 3}}, before=before)
    assert await store.get("things", "n", "a") == newer


async def test_one_that_is_gone_is_not_found(store: Store) -> None:
    before = await store.create("things", thing(v=1))
    await store.delete("things", "n", "a")
    with pytest.raises(NotFoundError):
        await store.update("things", {**before, "spec": {"v": 3}}, before=before)


async def test_what_changes_nothing_keeps_its_version(store: Store) -> None:
    before = await store.create("things", thing(v=1))
    assert await store.update("things", dict(before), before=before) == before


async def test_the_last_finalizer_removes_it(store: Store) -> None:
    body = thing()
    body["metadata"]["finalizers"] = ["f"]
    await store.create("things", body)
    before = await store.delete("things", "n", "a")
    meta = {name: value for name, value in before["metadata"].items() if name != "finalizers"}
    await store.update("things", {**before, "metadata": meta}, before=before)
    with pytest.raises(NotFoundError):
        await store.get("things", "n", "a")
