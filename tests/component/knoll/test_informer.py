"""The copy that reconcilers read is the store's content, and its subscribers miss nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.store.config_watcher import ConfigWatcher
from knoll.store.informer import Informer, Informers, ObjectChange
from knoll.store.protocol import PackedListing, PackedObject
from knoll.store.rules import encode
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

CM, SECRETS = "configmaps", "secrets"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@asynccontextmanager
async def running(informer: Informer | Informers) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    await informer.synced()
    yield
    task.cancel()
    await asyncio.wait({task})


def body(name: str, namespace: str = "a", **meta: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, **meta}, "data": {"k": "1"}}


async def test_an_informer_has_what_was_there_and_what_came_later(store: MemoryStore) -> None:
    there = await store.create(CM, body("x"))
    informer = Informer(store, CM)
    async with running(informer):
        assert informer.get("a", "x") == there
        later = await store.create(CM, body("y"))
        await eventually(lambda: informer.list() == [there, later])
        await store.delete(CM, "a", "x")
        await eventually(lambda: informer.list("a") == [later])
        assert informer.get("a", "x") is None


async def test_subscribers_get_old_and_new_bodies_beginning_with_existing_objects(store: MemoryStore) -> None:
    informer, changes = Informer(store, CM), asyncio.Queue[ObjectChange]()
    first = await store.create(CM, body("x"))
    async with running(informer):
        end = informer.subscribe(changes.put_nowait)
        assert await changes.get() == ObjectChange("ADDED", CM, "a/x", None, first)
        second = await store.update(CM, {**first, "data": {}})
        assert await changes.get() == ObjectChange("MODIFIED", CM, "a/x", first, second)
        await store.delete(CM, "a", "x")
        assert await changes.get() == ObjectChange("DELETED", CM, "a/x", second, None)
        end()
        await store.create(CM, body("y"))
        await eventually(lambda: len(informer) == 1)
        assert changes.empty()


async def test_objects_are_found_by_label_owner_and_namespace(store: MemoryStore) -> None:
    informer = Informer(store, CM, labels=["app"])
    await store.create(CM, body("x", labels={"app": "one", "tier": "web"}, ownerReferences=[{"uid": "u"}]))
    await store.create(CM, body("y", labels={"app": "one"}))
    await store.create(CM, body("z", "b", labels={"app": "one"}, ownerReferences=[{"uid": "u"}]))
    async with running(informer):
        assert informer.keys(labels={"app": "one"}) == ["a/x", "a/y", "b/z"]
        assert informer.keys("a", labels={"app": "one"}, owner="u") == ["a/x"]
        assert informer.keys(labels={"app": "one", "tier": "web"}) == informer.keys(labels={"tier": "web"}) == ["a/x"]
        assert informer.keys(labels={"app": "two"}) == informer.keys(owner="v") == []
        await store.update(CM, body("x", labels={"app": "two"}))
        await eventually(lambda: informer.keys(labels={"app": "two"}) == ["a/x"])
        assert informer.keys(owner="u") == ["b/z"]


async def test_what_a_reader_does_to_an_object_no_other_sees(store: MemoryStore) -> None:
    await store.create(CM, body("x"))
    informer = Informer(store, CM)
    async with running(informer):
        cached = informer.get("a", "x")
        assert cached is not None
        cached["data"]["k"] = "mine"
        assert informer.get("a", "x") != cached


async def test_peeking_shows_the_newest_object_decoded_or_not(store: MemoryStore) -> None:
    informer = Informer(store, CM, decoded=2)
    async with running(informer):
        for name in "xyz":
            await store.create(CM, body(name))
        await eventually(lambda: len(informer) == 3)
        assert [informer.peek("a", name) for name in "xyzyx"] == [informer.get("a", name) for name in "xyzyx"]
        assert informer.peek("a", "x") is informer.peek("a", "x")
        changed = await store.update(CM, {**body("x"), "data": {}})
        await eventually(lambda: informer.peek("a", "x") == changed)
        await store.delete(CM, "a", "x")
        await eventually(lambda: informer.peek("a", "x") is None)


async def test_an_object_that_is_being_deleted_or_was_replaced_does_not_count_as_there(store: MemoryStore) -> None:
    informer = Informer(store, CM)
    async with running(informer):
        await store.create(CM, body("x", uid="u", finalizers=["example.com/held"]))
        await eventually(lambda: informer.has("a", "x", "u"))
        assert not informer.has("a", "x", "other")
        assert not informer.has("a", "y", "u")
        await store.delete(CM, "a", "x")
        await eventually(lambda: not informer.has("a", "x", "u"))
        assert informer.uid("a", "x") == "u"


async def test_informers_of_one_watch_see_all_kinds_in_one_order(store: MemoryStore) -> None:
    informers = Informers(store, [Informer(store, CM), Informer(store, SECRETS)])
    changes: list[tuple[str, str]] = []
    for informer in informers:
        informer.subscribe(lambda notice: changes.append((notice.resource, notice.key)))
    async with running(informers):
        expected = []
        for i in range(20):
            kind = (CM, SECRETS, "services")[i % 3]
            await store.create(kind, body(f"n{i}"))
            if kind != "services":
                expected.append((kind, f"a/n{i}"))
        await eventually(lambda: changes == expected)
        assert len(informers[CM]) == len(informers[SECRETS]) == 7


async def test_an_informer_that_the_history_overtook_lists_again() -> None:
    store = MemoryStore(history=3)
    informer, changes = Informer(store, CM), []
    informer.subscribe(lambda notice: changes.append((notice.type, notice.key)))
    async with running(informer):
        # Without a pause: the informer has no chance to follow.
        for i in range(50):
            await store.create(CM, body(f"n{i}"))
        await store.delete(CM, "a", "n7")
        await eventually(lambda: informer.keys() == sorted(f"a/n{i}" for i in range(50) if i != 7))
    assert sorted(changes) == [("ADDED", key) for key in informer.keys()]  # noqa: SIM118


objects = st.dictionaries(st.sampled_from("abcde"), st.sampled_from([(1, "u1"), (2, "u1"), (3, "u2"), (4, "u2")]))
"""Name to version and uid; a version is one object's."""


@given(before=objects, after=objects)
def test_a_new_listing_yields_exactly_the_differences(
    before: dict[str, tuple[int, str]], after: dict[str, tuple[int, str]]
) -> None:
    def listing(objects: dict[str, tuple[int, str]], version: int) -> PackedListing:
        items = [PackedObject(f"a/{name}", at, encode(body(name, uid=uid))) for name, (at, uid) in objects.items()]
        return PackedListing(items, version)

    informer = Informer(MemoryStore(), CM)
    asyncio.run(informer.replace(listing(before, 10)))
    copy = {key: informer.get(*key.split("/")) for key in informer.keys()}  # noqa: SIM118

    def take(notice: ObjectChange) -> None:
        assert copy.get(notice.key) == notice.old
        if notice.new is None:
            del copy[notice.key]
        else:
            copy[notice.key] = notice.new

    informer.subscribe(lambda notice: take(notice) if notice.type != "ADDED" or notice.key not in copy else None)
    asyncio.run(informer.replace(listing(after, 20)))
    assert sorted(copy) == [f"a/{name}" for name in sorted(after)] == informer.keys()
    for name, (at, uid) in after.items():
        meta = (copy[f"a/{name}"] or {})["metadata"]
        assert (meta["uid"], meta["resourceVersion"]) == (uid, str(at))


async def test_the_configuration_follows_its_config_maps(store: MemoryStore) -> None:
    live, informer = ConfigWatcher.of(store)
    delays: list[float] = []
    live.subscribe(lambda config: delays.append(config.autoscaler.stable_window_seconds))
    default = live.current

    async def write(window: str) -> None:
        made = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}}
        await store.update(CM, {**made, "data": {"stable-window": window}})

    await store.create(CM, {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}, "data": {}})
    async with running(informer):
        await live.synced()
        assert live.current == default
        await write("33s")
        await eventually(lambda: delays == [33.0])
        await write("nonsense")
        await store.create(CM, body("config-autoscaler", "other"))
        await write("44s")
        await eventually(lambda: delays == [33.0, 44.0])
        await store.delete(CM, "knative-serving", "config-autoscaler")
        await eventually(lambda: live.current == default)
