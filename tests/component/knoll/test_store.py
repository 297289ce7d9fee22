"""The guarantees of a store, tested with both implementations."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from knoll.redis.client import RedisClient, connect
from knoll.redis.encryption import PLAIN, EncryptionKey, Keyring, dump
from knoll.store import event_feed, redis_store
from knoll.store.compression import decompress
from knoll.store.protocol import ObjectWrite, WatchEvent
from knoll.store.redis_store import RedisStore
from knoll.store.rules import Record, decode
from knoll.values import kinds
from knoll.values.errors import AlreadyExistsError, BadRequestError, ConflictError, ExpiredError, NotFoundError
from tests.component.knoll.conftest import take
from tests.doubles.memory_store import MemoryStore

NOW = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
CM, SECRETS = "configmaps", "secrets"

AnyStore = MemoryStore | RedisStore
MakeStore = Callable[..., AnyStore]


@pytest.fixture(params=["memory", "redis", "sealed"])
def form(request: pytest.FixtureRequest) -> str:
    """`sealed`: on Redis, with every kind encrypted as Secrets are."""
    return str(request.param)


@pytest.fixture
async def make_store(
    form: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MakeStore]:
    made: list[AnyStore] = []
    redis = None if form == "memory" else connect(request.getfixturevalue("redis_url"))
    keyring = PLAIN
    if form == "sealed":
        for module in (redis_store, event_feed):
            monkeypatch.setattr(module, "SEALED_KINDS", frozenset({CM, SECRETS, "namespaces"}))
        (tmp_path / "keys").write_bytes(dump([EncryptionKey.fresh()]))
        keyring = Keyring(tmp_path / "keys")

    def make(**options: Any) -> AnyStore:
        if redis is None:
            options.pop("ring", None)
            made.append(MemoryStore(clock=lambda: NOW, **options))
        else:
            made.append(RedisStore(redis, clock=lambda: NOW, keyring=keyring, **options))
        return made[-1]

    yield make
    for store in made:
        await store.close()
    if redis is not None:
        await redis.aclose()


@pytest.fixture
def store(make_store: MakeStore) -> AnyStore:
    return make_store()


def body(name: str = "x", namespace: str = "a", **meta: Any) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name, **meta}, "data": {"k": "1"}}


def version(body: dict[str, Any]) -> int:
    return int(body["metadata"]["resourceVersion"])


async def test_what_was_created_is_read_back_with_its_version(store: AnyStore) -> None:
    made = await store.create(CM, body(resourceVersion="7"))
    assert made == body(resourceVersion=made["metadata"]["resourceVersion"])
    assert await store.get(CM, "a", "x") == made
    assert version(made) == (await store.list(CM)).version


async def test_a_cluster_wide_object_has_no_namespace(store: AnyStore) -> None:
    await store.create("namespaces", {"metadata": {"name": "n"}})
    assert (await store.get("namespaces", "", "n"))["metadata"]["name"] == "n"
    assert [item["metadata"]["name"] for item in (await store.list("namespaces", "")).items] == ["n"]


async def test_an_object_that_is_not_there_is_not_found(store: AnyStore) -> None:
    with pytest.raises(NotFoundError, match=r'^configmaps "x" not found$'):
        await store.get(CM, "a", "x")
    with pytest.raises(NotFoundError):
        await store.update(CM, body())
    with pytest.raises(NotFoundError):
        await store.delete(CM, "a", "x")


async def test_a_name_is_given_once(store: AnyStore) -> None:
    await store.create(CM, body())
    with pytest.raises(AlreadyExistsError, match=r'^configmaps "x" already exists$'):
        await store.create(CM, body())
    await store.create(CM, body(namespace="b"))
    await store.create(SECRETS, body())


async def test_a_list_is_sorted_by_namespace_then_name(store: AnyStore) -> None:
    for namespace, name in [("b", "a"), ("a-b", "x"), ("a", "z"), ("a", "b")]:
        await store.create(CM, body(name, namespace))
    keys_listed = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in (await store.list(CM)).items]
    assert keys_listed == [("a", "b"), ("a", "z"), ("a-b", "x"), ("b", "a")]


async def test_a_list_of_a_namespace_has_only_its_objects(store: AnyStore) -> None:
    for namespace in ("a", "a-b", "b"):
        await store.create(CM, body(namespace=namespace))
    listing = await store.list(CM, "a")
    assert [item["metadata"]["namespace"] for item in listing.items] == ["a"]
    assert listing.version == (await store.list(CM)).version


async def test_a_long_list_is_whole(store: AnyStore) -> None:
    names = [f"n{i:04}" for i in range(1203)]
    # Not all at once: a client would open as many connections as it may have, for which a busy machine has no time.
    for start in range(0, len(names), 32):
        await asyncio.gather(*(store.create(CM, body(name)) for name in names[start : start + 32]))
    assert [item["metadata"]["name"] for item in (await store.list(CM, "a")).items] == names
    assert [item["metadata"]["name"] for item in (await store.list(CM)).items] == names


async def test_a_packed_list_unpacks_to_the_list(store: AnyStore) -> None:
    for name in ("x", "y"):
        await store.create(CM, body(name))
    packed, listing = await store.list_packed(CM), await store.list(CM)
    assert packed.version == listing.version
    items = sorted(packed.items, key=lambda item: item.key)
    assert [decode(item.data, item.version) for item in items] == listing.items
    assert [item.key for item in items] == ["a/x", "a/y"]


async def test_a_stale_write_is_refused(store: AnyStore) -> None:
    first = await store.create(CM, body())
    await store.update(CM, {**first, "data": {"k": "2"}})
    with pytest.raises(ConflictError, match="the object has been modified; please apply your changes"):
        await store.update(CM, {**first, "data": {"k": "3"}})
    assert (await store.get(CM, "a", "x"))["data"] == {"k": "2"}


async def test_a_write_without_a_version_replaces_any_version(store: AnyStore) -> None:
    first = await store.create(CM, body())
    second = await store.update(CM, {**body(), "data": {}})
    assert second["data"] == {}
    assert version(second) > version(first)


async def test_a_write_to_an_object_that_was_created_again_is_refused_by_its_uid(store: AnyStore) -> None:
    await store.create(CM, body(uid="two"))
    with pytest.raises(ConflictError, match="UID in precondition: one, UID in object meta: two"):
        await store.update(CM, body(uid="one"))
    with pytest.raises(ConflictError):
        await store.delete(CM, "a", "x", uid="one")
    await store.delete(CM, "a", "x", uid="two")


async def test_an_update_that_changes_nothing_makes_no_event(store: AnyStore) -> None:
    first = await store.create(CM, {**body(), "spec": {"a": 1, "b": [True, None, 1.5]}})
    again = {"spec": {"b": [True, None, 1.5], "a": 1}, **body(resourceVersion=first["metadata"]["resourceVersion"])}
    assert await store.update(CM, again) == first
    assert (await store.list(CM)).version == version(first)


async def test_one_is_not_true(store: AnyStore) -> None:
    first = await store.create(CM, {**body(), "spec": 1})
    assert version(await store.update(CM, {**body(), "spec": True})) > version(first)


async def test_of_two_writers_with_the_same_version_one_wins(store: AnyStore) -> None:
    first = await store.create(CM, body())
    tries = [store.update(CM, {**first, "data": {"k": f"w{i}"}}) for i in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 1
    assert sum(isinstance(result, ConflictError) for result in results) == 19


async def test_concurrent_writes_without_a_version_all_succeed(store: AnyStore) -> None:
    await store.create(CM, body())
    written = await asyncio.gather(*(store.update(CM, {**body(), "data": {"k": f"w{i}"}}) for i in range(20)))
    assert len({version(body) for body in written}) == 20


async def test_writes_that_are_sent_together_have_the_results_of_single_ones(store: AnyStore) -> None:
    taken, old = await store.create(CM, body("taken")), await store.create(CM, body("old"))
    newer = await store.update(CM, {**old, "data": {"k": "2"}})
    same, last = await store.create(CM, body("same")), await store.create(CM, body("last"))
    made, exists, conflict, refused, replaced, unchanged, missing, again = await store.write_all(
        [
            ObjectWrite(CM, body("new")),
            ObjectWrite(CM, body("taken")),
            ObjectWrite(CM, {**old, "data": {"k": "3"}}, before=old),
            ObjectWrite(CM, {**body("bad"), "spec": 2**70}),
            ObjectWrite(CM, {**last, "data": {"k": "4"}}, before=last),
            ObjectWrite(CM, same, before=same),
            ObjectWrite(CM, body("gone"), before=body("gone", resourceVersion="5")),
            ObjectWrite(CM, {**body("old"), "data": {"k": "5"}}, before={**old, "metadata": newer["metadata"]}),
        ]
    )
    assert isinstance(exists, AlreadyExistsError)
    assert str(exists) == 'configmaps "taken" already exists'
    assert isinstance(conflict, ConflictError)
    assert isinstance(refused, BadRequestError)
    assert isinstance(missing, NotFoundError)
    assert unchanged == same
    assert isinstance(made, dict)
    assert isinstance(replaced, dict)
    assert isinstance(again, dict)
    assert version(same) < version(made) < version(replaced) < version(again), "in order"
    for stored in (taken, made, replaced, unchanged, again):
        assert isinstance(stored, dict)
        assert await store.get(CM, "a", stored["metadata"]["name"]) == stored
    assert await store.write_all([]) == []


async def test_a_write_without_a_version_is_decided_by_the_stored_object_also_with_others(store: AnyStore) -> None:
    old = await store.create(CM, body())
    await store.update(CM, {**old, "data": {"k": "2"}})
    (written,) = await store.write_all([ObjectWrite(CM, {**body(), "data": {"k": "3"}}, before=old)])
    assert await store.get(CM, "a", "x") == written
    assert isinstance(written, dict)
    assert written["data"] == {"k": "3"}


async def test_what_json_cannot_carry_is_refused(store: AnyStore) -> None:
    with pytest.raises(BadRequestError, match="cannot be stored as JSON"):
        await store.create(CM, {**body(), "spec": 2**70})


async def test_returned_bodies_belong_to_the_caller(store: AnyStore) -> None:
    made = await store.create(CM, body())
    made["data"]["k"] = "mine"
    (await store.list(CM)).items[0]["data"]["k"] = "mine"
    assert (await store.get(CM, "a", "x"))["data"] == {"k": "1"}


async def test_a_deleted_object_is_gone_and_returned_once_more(store: AnyStore) -> None:
    made = await store.create(CM, body())
    last = await store.delete(CM, "a", "x")
    assert version(last) > version(made)
    assert last["data"] == made["data"]
    assert (await store.list(CM)).items == []


async def test_a_deletion_at_another_version_is_refused(store: AnyStore) -> None:
    made = await store.create(CM, body())
    with pytest.raises(ConflictError):
        await store.delete(CM, "a", "x", version=str(version(made) - 1))
    await store.delete(CM, "a", "x", version=str(version(made)))


async def test_finalizers_hold_a_deleted_object(store: AnyStore) -> None:
    await store.create(CM, body(finalizers=["f"]))
    held = await store.delete(CM, "a", "x")
    assert held["metadata"]["deletionTimestamp"] == "2026-03-04T05:06:07Z"
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    assert await store.get(CM, "a", "x") == held
    assert await store.delete(CM, "a", "x") == held, "deleting again changes nothing"


async def test_the_last_finalizer_taken_away_removes_a_deleted_object(store: AnyStore) -> None:
    since = version(await store.create(CM, body(finalizers=["f", "g"])))
    held = await store.delete(CM, "a", "x")
    held = await store.update(CM, {**held, "metadata": {**held["metadata"], "finalizers": ["g"]}})
    last = await store.update(CM, {**held, "metadata": {**held["metadata"], "finalizers": []}})
    with pytest.raises(NotFoundError):
        await store.get(CM, "a", "x")
    events = await take(store.watch(since), 3)
    assert [event.type for event in events] == ["MODIFIED", "MODIFIED", "DELETED"]
    assert events[-1].body == last


async def test_owners_are_indexed_through_all_writes(store: AnyStore) -> None:
    await store.create(CM, body(ownerReferences=[{"uid": "u"}, {"uid": "v"}]))
    await store.create(SECRETS, body("y", ownerReferences=[{"uid": "u"}]))
    assert list(await store.owned_by("u")) == [(CM, "a", "x"), (SECRETS, "a", "y")]
    await store.update(CM, body(ownerReferences=[{"uid": "v"}, {"uid": "w"}]))
    assert list(await store.owned_by("u")) == [(SECRETS, "a", "y")]
    assert list(await store.owned_by("v")) == list(await store.owned_by("w")) == [(CM, "a", "x")]
    await store.delete(CM, "a", "x")
    assert list(await store.owned_by("v")) == list(await store.owned_by("w")) == []


async def test_a_watch_has_the_old_and_the_new_object(store: AnyStore) -> None:
    since = (await store.list(CM)).version
    added = await store.create(CM, body())
    modified = await store.update(CM, {**body(), "data": {}})
    deleted = await store.delete(CM, "a", "x")
    events = await take(store.watch(since, {CM}), 3)
    assert [(event.type, event.body, event.before) for event in events] == [
        ("ADDED", added, None),
        ("MODIFIED", modified, added),
        ("DELETED", deleted, modified),
    ]
    assert [event.version for event in events] == [since + 1, since + 2, since + 3]


async def test_a_watch_of_one_kind_has_events_of_that_kind_only(store: AnyStore) -> None:
    since = (await store.list(CM)).version
    await store.create(CM, body())
    await store.create(SECRETS, body())
    await store.create(CM, body("y"))
    assert [event.body["metadata"]["name"] for event in await take(store.watch(since, {CM}), 2)] == ["x", "y"]
    assert [event.resource for event in await take(store.watch(since), 3)] == [CM, SECRETS, CM]


async def test_a_watch_continues_with_later_writes(store: AnyStore) -> None:
    since = (await store.list(CM)).version
    watching = asyncio.create_task(take(store.watch(since), 3))
    for name in ("x", "y", "z"):
        await store.create(CM, body(name))
    assert [event.body["metadata"]["name"] for event in await watching] == ["x", "y", "z"]


async def test_watches_that_begin_anywhere_meet_no_gap_and_no_duplicate(make_store: MakeStore) -> None:
    store = make_store(ring=4)
    since = (await store.list(CM)).version
    watches: list[asyncio.Task[Any]] = []
    for i in range(60):
        await store.create(CM, body(f"n{i}"))
        for begin in {0, i // 2, i}:
            watches.append(asyncio.create_task(take(store.watch(since + begin), 60 - begin)))
    for events in await asyncio.gather(*watches):
        assert [event.version for event in events] == list(range(events[0].version, since + 61))


async def test_a_slow_watch_misses_nothing(make_store: MakeStore) -> None:
    store = make_store(ring=4)
    slow = store.watch((await store.list(CM)).version)
    await store.create(CM, body("n0"))
    seen = [await anext(slow)]
    for i in range(1, 50):
        await store.create(CM, body(f"n{i}"))
    seen += await take(slow, 49)
    assert [event.body["metadata"]["name"] for event in seen] == [f"n{i}" for i in range(50)]


async def test_a_watch_from_before_the_history_is_expired(make_store: MakeStore) -> None:
    store = make_store(history=5)
    since = (await store.list(CM)).version
    for i in range(6):
        await store.create(CM, body(f"n{i}"))
    assert len(await take(store.watch(since + 1), 5)) == 5
    with pytest.raises(ExpiredError, match=f"too old resource version: {since} "):
        await take(store.watch(since), 1)


async def test_a_watch_that_the_history_overtakes_is_expired(make_store: MakeStore) -> None:
    store = make_store(history=5, ring=2)
    watch = store.watch((await store.list(CM)).version)
    await store.create(CM, body("first"))
    await anext(watch)
    for i in range(20):
        await store.create(CM, body(f"n{i}"))
    with pytest.raises(ExpiredError):
        await take(watch, 20)


async def test_a_watch_from_the_future_is_expired(store: AnyStore) -> None:
    newest = (await store.list(CM)).version
    with pytest.raises(ExpiredError):
        await take(store.watch(newest + 1), 1)


async def test_watches_that_end_leave_the_others_alone(store: AnyStore) -> None:
    since = (await store.list(CM)).version
    staying = asyncio.create_task(take(store.watch(since), 2))
    leaving = asyncio.create_task(take(store.watch(since), 1))
    await store.create(CM, body("x"))
    await leaving
    await take(store.watch(since), 1)
    await store.create(CM, body("y"))
    assert len(await staying) == 2
    assert len(await take(store.watch(since), 2)) == 2


async def test_a_list_and_a_watch_from_it_give_the_whole_truth(store: AnyStore) -> None:
    half = asyncio.Event()

    async def write() -> None:
        for i in range(100):
            await store.create(CM, body(f"n{i}"))
            if i % 3 == 0:
                await store.delete(CM, "a", f"n{i}")
            if i == 50:
                half.set()
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    await half.wait()
    listing = await store.list(CM)
    names_listed = {item["metadata"]["name"] for item in listing.items}
    await writing
    for event in await take(store.watch(listing.version), await store.version() - listing.version):
        (names_listed.discard if event.type == "DELETED" else names_listed.add)(event.body["metadata"]["name"])
    assert names_listed == {item["metadata"]["name"] for item in (await store.list(CM)).items}


async def test_a_watch_of_some_kinds_unpacks_no_others(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    store, unpacked = RedisStore(redis), list[str]()
    event = Record.event

    def counted(record: Record) -> WatchEvent:
        unpacked.append(record.resource)
        return event(record)

    monkeypatch.setattr(Record, "event", counted)
    since = await store.version()
    for number in range(5):
        await store.create(CM, body(f"x{number}"))
        await store.create(SECRETS, body(f"x{number}"))
    await store.create(kinds.ROUTE.id, body("last"))
    events = await take(store.watch(since, {SECRETS, kinds.ROUTE.id}), 6)
    assert [seen.resource for seen in events] == unpacked == [SECRETS] * 5 + [kinds.ROUTE.id]
    await store.close()


async def test_the_writer_of_an_event_need_not_unpack_it_and_others_get_the_same(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(redis)
    since = await store.version()
    made = await store.create(CM, body("x"))
    changed = await store.update(CM, {**made, "data": {"k": "2"}})
    with monkeypatch.context() as patched:
        patched.setattr("knoll.store.rules.zlib.decompress", None)
        own = await take(store.watch(since), 2)
    others = RedisStore(redis)
    for events in (own, await take(others.watch(since), 2)):
        assert [(event.type, event.body, event.before) for event in events] == [
            ("ADDED", made, None),
            ("MODIFIED", changed, made),
        ]
        assert [decode(decompress(CM, event.data), event.version) for event in events] == [made, changed]
    await store.close()
    await others.close()
