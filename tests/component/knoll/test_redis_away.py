"""No acknowledged write is lost, and all clients continue, when Redis dies, hangs or comes back empty."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from knoll.redis.client import RedisClient, connect, connected
from knoll.redis.safety import unsafe_settings
from knoll.store.informer import Informer
from knoll.store.protocol import WatchEvent
from knoll.store.redis_store import RedisStore
from knoll.tables.protocol import FieldChange, Reset
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import ExpiredError, StoreFullError, StoreUnavailableError
from tests.component.knoll.conftest import RedisProcess, take
from tests.waiting import eventually

CM = "configmaps"


class Entry(msgspec.Struct, frozen=True):
    host: str


@pytest.fixture
async def client(own_redis: RedisProcess) -> AsyncIterator[RedisClient]:
    redis = connect(own_redis.url)
    yield redis
    await redis.aclose()


@pytest.fixture
async def store(client: RedisClient) -> AsyncIterator[RedisStore]:
    store = RedisStore(client)
    yield store
    await store.close()


def body(name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "a", "name": name, "uid": f"uid-{name}"}, "data": {"k": "1"}}


async def create_when_it_can(store: RedisStore, name: str) -> None:
    async def try_once() -> bool:
        try:
            await store.create(CM, body(name))
        except StoreUnavailableError:
            return False
        return True

    await eventually(try_once, condition="a write")


async def test_what_was_acknowledged_survives_a_kill_and_watches_go_on(
    own_redis: RedisProcess, store: RedisStore
) -> None:
    since = await store.version()
    acknowledged: list[str] = []
    seen: list[WatchEvent] = []
    stop = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"w{writer}-{number}"
            number += 1
            try:
                await store.create(CM, body(name))
                acknowledged.append(name)
            except StoreUnavailableError:
                await asyncio.sleep(0)

    async def watch() -> None:
        async with aclosing(store.watch(since)) as events:  # type: ignore[type-var]
            async for event in events:
                seen.append(event)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        for writer in range(10):
            tasks.create_task(write(writer))
        for _ in range(2):
            had = len(acknowledged)
            await eventually(lambda had=had: len(acknowledged) > had + 200)  # type: ignore[misc]
            own_redis.kill()
            await asyncio.to_thread(own_redis.start)
        had = len(acknowledged)
        await eventually(lambda: len(acknowledged) > had + 200)
        stop.set()
        last = await eventually(store.version)
        await eventually(lambda: bool(seen) and seen[-1].version >= last)
        watching.cancel()

    stored = {item["metadata"]["name"] for item in (await store.list(CM)).items}
    assert set(acknowledged) <= stored
    assert [event.version for event in seen] == list(range(since + 1, seen[-1].version + 1))
    assert {event.body["metadata"]["name"] for event in seen} == stored


async def test_a_redis_that_refuses_to_write_is_unavailable(
    own_redis: RedisProcess, store: RedisStore, client: RedisClient
) -> None:
    await store.create(CM, body("x"))
    await client.execute("CONFIG", "SET", "min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailableError):
        await store.create(CM, body("y"))
    assert (await store.get(CM, "a", "x"))["data"] == {"k": "1"}


async def test_calls_report_that_redis_is_unavailable(
    own_redis: RedisProcess, store: RedisStore, client: RedisClient
) -> None:
    await store.create(CM, body("x"))
    own_redis.kill()
    table = RedisTable(client, "t", Entry)
    for call in (
        store.get(CM, "a", "x"),
        store.list(CM),
        store.list(CM, "a"),
        store.create(CM, body("y")),
        store.update(CM, body("x")),
        store.delete(CM, "a", "x"),
        store.owned_by("u"),
        table.put("f", Entry("h")),
        table.remove("f"),
        table.snapshot(),
        table.acknowledge("me", 1),
        table.followers(),
    ):
        with pytest.raises(StoreUnavailableError, match="Redis is unavailable"):
            await call


async def test_watches_continue_after_redis_has_hung(own_redis: RedisProcess, store: RedisStore) -> None:
    watch = store.watch(await store.version())
    await store.create(CM, body("x"))
    await anext(watch)
    following = asyncio.create_task(take(watch, 1))
    own_redis.signal(signal.SIGSTOP)
    writing = asyncio.create_task(store.create(CM, body("y")))
    await asyncio.wait({writing}, timeout=0.2)
    own_redis.signal(signal.SIGCONT)
    await writing
    assert (await following)[0].body["metadata"]["name"] == "y"


async def test_watches_expire_when_redis_comes_back_empty_and_versions_only_grow(
    own_redis: RedisProcess, store: RedisStore
) -> None:
    for number in range(20):
        await store.create(CM, body(f"n{number}"))
    newest = await store.version()
    watch = store.watch(newest - 1)
    await anext(watch)
    following = asyncio.create_task(take(watch, 1))
    own_redis.kill()
    own_redis.lose_data()
    await asyncio.to_thread(own_redis.start)
    with pytest.raises(ExpiredError):
        await following
    await create_when_it_can(store, "new")
    listing = await store.list(CM)
    assert [item["metadata"]["name"] for item in listing.items] == ["new"]
    assert listing.version > newest
    with pytest.raises(ExpiredError):
        await take(store.watch(newest), 1)


async def test_watches_expire_when_another_client_reads_an_emptied_redis_first(
    store: RedisStore, client: RedisClient
) -> None:
    await store.create(CM, body("x"))
    watch = store.watch(await store.version() - 1)
    await anext(watch)
    following = asyncio.create_task(take(watch, 1))
    await client.execute("FLUSHALL")
    # A reading sets the version anew, beyond the old one; nothing is written, so no event tells of the loss.
    other = RedisStore(client)
    await other.list(CM)
    with pytest.raises(ExpiredError):
        await asyncio.wait_for(following, 30)
    await other.close()


async def test_watches_expire_when_redis_forgot_its_last_writes_and_gives_their_versions_again(
    own_redis: RedisProcess, store: RedisStore, client: RedisClient
) -> None:
    async def reading() -> bool:
        return " cmd=xread " in (await client.execute("CLIENT", "LIST")).decode()

    watch = store.watch(await store.version())
    await store.create(CM, body("x"))
    await anext(watch)
    following = asyncio.create_task(take(watch, 2))
    await eventually(reading)
    await store.create(CM, body("y"))
    forgotten = await store.version()
    # As a Redis comes back that was not told to write each command through.
    await client.transaction(
        ("XDEL", "knoll:events", f"{forgotten}-0"),
        ("XSETID", "knoll:events", f"{forgotten - 1}-0"),
        ("SET", "knoll:revision", forgotten - 1),
        ("HDEL", "knoll:objects:configmaps", "a/y"),
    )
    await store.create(CM, body("other"))
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    with pytest.raises(ExpiredError, match="lost data"):
        await following


async def test_an_informer_yields_the_differences_after_a_loss(own_redis: RedisProcess, store: RedisStore) -> None:
    informer, changes = Informer(store, CM), []
    informer.subscribe(lambda notice: changes.append((notice.type, notice.key)))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(informer.run())
        await informer.synced()
        await store.create(CM, body("x"))
        await eventually(lambda: changes == [("ADDED", "a/x")])
        own_redis.kill()
        own_redis.lose_data()
        await asyncio.to_thread(own_redis.start)
        await create_when_it_can(store, "y")
        await eventually(lambda: changes == [("ADDED", "a/x"), ("DELETED", "a/x"), ("ADDED", "a/y")])
        running.cancel()


async def test_a_follower_continues_without_a_reset_when_redis_was_only_killed(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    table = RedisTable(client, "t", Entry)
    first = await table.put("f", Entry("h"))
    following = table.follow()
    await anext(following)
    await table.put("g", Entry("i"))
    await anext(following)
    change = asyncio.create_task(take(following, 1))
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    assert (await table.snapshot())[0] == first + 1
    await table.put("f", Entry("j"))
    assert await change == [FieldChange(first + 2, "f", Entry("j"))]


async def test_a_follower_keeps_its_copy_until_the_writer_of_an_emptied_table_is_back(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    table = RedisTable(client, "t", Entry)
    first = await table.put("f", Entry("h"))
    following = table.follow()
    assert await anext(following) == Reset(first, {"f": Entry("h")})
    change = asyncio.create_task(take(following, 1))
    own_redis.kill()
    own_redis.lose_data()
    await asyncio.to_thread(own_redis.start)
    await asyncio.wait({change}, timeout=0.5)
    assert not change.done()
    again = await table.put("g", Entry("i"))
    assert again > first
    assert await change == [Reset(again, {"g": Entry("i")})]


async def test_acknowledgements_are_sent_again_after_a_restart(own_redis: RedisProcess, client: RedisClient) -> None:
    table = RedisTable(client, "t", Entry)
    changes: list[tuple[str, int]] = []

    async def listen() -> None:
        async for acknowledgement in table.acknowledgements():
            changes.append(acknowledgement)

    listening = asyncio.create_task(listen())
    await table.acknowledge("me", 1)
    await eventually(lambda: ("me", 1) in changes)
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    await table.acknowledge("me", 2)
    await eventually(lambda: ("me", 2) in changes)
    listening.cancel()


async def test_followers_of_a_redis_that_has_just_started_are_waited_for(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    table = RedisTable(client, "t", Entry)
    await table.acknowledge("me", 1)
    await table.acknowledge("me", 2)  # not in the file
    seconds = int((await client.execute("TIME"))[0])
    await client.execute("HSET", "knoll:table:t:followers", "quiet", f"3 {seconds - 30}.0")
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    assert await eventually(table.followers) == {"me": 1, "quiet": 3}, "until they have said more, or time is up"
    await table.acknowledge("me", 2)
    assert (await table.followers())["me"] == 2


async def test_only_that_a_follower_exists_is_written_to_the_file_of_redis(client: RedisClient) -> None:
    async def size() -> int:
        listed = (await client.execute("INFO", "persistence")).decode()
        return int(re.findall(r"aof_current_size:(\d+)", listed)[0])

    table = RedisTable(client, "t", Entry)
    before = await size()
    await table.acknowledge("me", 1)
    joined = await size()
    assert joined > before
    for version in (1, 2, 3, 3):
        await table.acknowledge("me", version)
    assert await size() == joined
    assert await table.followers() == {"me": 3}
    await table.leave("me")
    assert await size() > joined


async def test_settings_that_lose_objects_are_named(client: RedisClient) -> None:
    assert await unsafe_settings(client) == []
    for name, value in (("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru"), ("appendfsync", "everysec")):
        await client.execute("CONFIG", "SET", name, value)
    assert await unsafe_settings(client) == [
        "maxmemory-policy is allkeys-lru: set it to noeviction",
        "appendfsync is everysec: set it to always",
    ]


async def test_a_full_redis_refuses_writes_with_the_reason(own_redis: RedisProcess) -> None:
    async with connected(own_redis.url) as client:
        store = RedisStore(client)
        made = await store.create("configmaps", {"metadata": {"namespace": "a", "name": "x"}})
        await client.execute("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(StoreFullError, match="reached its memory limit") as refused:
            await store.create("configmaps", {"metadata": {"namespace": "a", "name": "y"}})
        assert (refused.value.code, refused.value.reason) == (507, "InsufficientStorage")
        assert await store.get("configmaps", "a", "x") == made, "reading goes on"
