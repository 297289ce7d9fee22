"""Deletion along owner references, with a store and informers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from knoll.store.informer import Informer, Informers
from knoll.store.owner_gc import FOREGROUND, ORPHAN, OwnerGarbageCollector
from knoll.values import kinds
from knoll.values.json import Json
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

SERVICE, CONFIGURATION, REVISION, ROUTE = kinds.SERVICE, kinds.CONFIGURATION, kinds.REVISION, kinds.ROUTE


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    informers = Informers(store, [Informer(store, kind.id) for kind in (SERVICE, CONFIGURATION, REVISION, ROUTE)])
    tasks = [
        asyncio.create_task(informers.run()),
        asyncio.create_task(OwnerGarbageCollector(store, list(informers)).run()),
    ]
    yield store
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def create(store: MemoryStore, kind: kinds.Kind, name: str, owner: Json | None = None, **meta: Any) -> Json:
    body: Json = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"namespace": "a", "name": name}}
    body["metadata"].update(uid=f"{kind.singular}-{name}", **meta)
    if owner is not None:
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
        reference |= {"uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}
        body["metadata"]["ownerReferences"] = [reference]
    return await store.create(kind.id, body)


async def service(store: MemoryStore, **meta: Any) -> Json:
    owner = await create(store, SERVICE, "s", **meta)
    configuration = await create(store, CONFIGURATION, "s", owner)
    await create(store, ROUTE, "s", owner)
    for number in range(3):
        await create(store, REVISION, f"s-{number}", configuration)
    return owner


async def left(store: MemoryStore) -> set[tuple[str, str]]:
    return {
        (kind.kind, item["metadata"]["name"])
        for kind in (SERVICE, CONFIGURATION, REVISION, ROUTE)
        for item in (await store.list(kind.id)).items
    }


async def test_dependents_are_deleted_after_their_owner(store: MemoryStore) -> None:
    await service(store)
    await create(store, SERVICE, "other")
    await store.delete(SERVICE.id, "a", "s")

    async def gone() -> bool:
        return await left(store) == {("Service", "other")}

    await eventually(gone)


async def test_in_the_foreground_dependents_are_deleted_before_their_owner(store: MemoryStore) -> None:
    since = await store.version()
    await service(store, finalizers=[FOREGROUND])
    await store.delete(SERVICE.id, "a", "s")
    gone = []
    async for event in store.watch(since):
        if event.type == "DELETED":
            gone.append(event.body["kind"])
        if len(gone) == 6:
            break
    assert gone[-1] == "Service"
    assert gone.index("Configuration") > max(index for index, kind in enumerate(gone) if kind == "Revision")


async def test_orphans_stay(store: MemoryStore) -> None:
    await service(store, finalizers=[ORPHAN])
    await store.delete(SERVICE.id, "a", "s")

    async def gone() -> bool:
        return ("Service", "s") not in await left(store)

    await eventually(gone)
    assert len(await left(store)) == 5
    assert "ownerReferences" not in (await store.get(CONFIGURATION.id, "a", "s"))["metadata"]


async def test_an_owner_that_was_created_again_is_a_different_one(store: MemoryStore) -> None:
    owner = await create(store, SERVICE, "s")
    await create(store, ROUTE, "s", {**owner, "metadata": {**owner["metadata"], "uid": "an-earlier-one"}})

    async def gone() -> bool:
        return await left(store) == {("Service", "s")}

    await eventually(gone)


async def test_an_owner_of_an_unknown_kind_counts_as_existing(store: MemoryStore) -> None:
    strange = {"apiVersion": "example.com/v1", "kind": "Strange", "metadata": {"name": "x", "uid": "u"}}
    await create(store, ROUTE, "kept", strange)
    owner = await create(store, SERVICE, "s")
    await create(store, ROUTE, "r", owner)
    await store.delete(SERVICE.id, "a", "s")

    async def gone() -> bool:
        return await left(store) == {("Route", "kept")}

    await eventually(gone)


async def test_an_object_of_another_namespace_does_not_hold_a_deletion(store: MemoryStore) -> None:
    owner = await service(store, finalizers=[FOREGROUND])
    await create(store, CONFIGURATION, "foreign", owner, namespace="b", finalizers=["b.example.com/held"])
    await store.delete(SERVICE.id, "a", "s")

    async def gone() -> bool:
        return await left(store) <= {("Configuration", "foreign")}

    await eventually(gone)


@pytest.mark.parametrize("owner", ["is being deleted", "is gone"])
async def test_an_object_that_is_created_after_its_owner_went_is_deleted(store: MemoryStore, owner: str) -> None:
    parent = await create(store, SERVICE, "s", finalizers=[FOREGROUND])
    await create(store, CONFIGURATION, "s", parent, finalizers=["example.com/held"])
    await store.delete(SERVICE.id, "a", "s")

    async def parent_is_gone() -> bool:
        return ("Service", "s") not in await left(store)

    if owner == "is gone":
        body = await store.get(CONFIGURATION.id, "a", "s")
        del body["metadata"]["finalizers"]
        await store.update(CONFIGURATION.id, body)
        await eventually(parent_is_gone)
    await create(store, ROUTE, "late", parent)

    async def late_is_gone() -> bool:
        return ("Route", "late") not in await left(store)

    await eventually(late_is_gone)
