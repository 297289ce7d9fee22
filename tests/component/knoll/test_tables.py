"""The guarantees of a table, tested with both implementations."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from knoll.redis.client import RedisClient, connect
from knoll.tables.protocol import FOLLOWER_TTL, FieldChange, Reset
from knoll.tables.redis_tables import RedisTable, uptime
from tests.component.knoll.conftest import take
from tests.doubles.memory_tables import MemoryTable
from tests.waiting import eventually


class Entry(msgspec.Struct, frozen=True):
    host: str
    weights: dict[str, int] = {}


AnyTable = MemoryTable[Entry] | RedisTable[Entry]
MakeTable = Callable[..., AnyTable]


@pytest.fixture
async def make_table(form: str, request: pytest.FixtureRequest) -> AsyncIterator[MakeTable]:
    if form == "memory":
        yield lambda **options: MemoryTable("t", Entry, **options)
        return
    redis = connect(request.getfixturevalue("redis_url"))
    yield lambda **options: RedisTable(redis, "t", Entry, **options)
    await redis.aclose()


@pytest.fixture
def table(make_table: MakeTable) -> AnyTable:
    return make_table()


async def test_an_empty_table_is_followed_from_an_empty_reset(table: AnyTable) -> None:
    version, entries = await table.snapshot()
    assert await take(table.follow(), 1) == [Reset(version, {})]
    assert entries == {}


async def test_a_put_gives_a_new_version_and_an_equal_put_the_old_one(table: AnyTable) -> None:
    first = await table.put("f", Entry("h", {"a": 1, "b": 2}))
    assert await table.put("f", Entry("h", {"b": 2, "a": 1})) == first
    assert await table.put("f", Entry("i")) == first + 1
    assert await table.snapshot() == (first + 1, {"f": (first + 1, Entry("i"))})


async def test_removing_what_is_not_there_changes_nothing(table: AnyTable) -> None:
    first = await table.put("f", Entry("h"))
    assert await table.remove("g") == first
    assert await table.remove("f") == first + 1
    assert await table.remove("f") == first + 1
    assert await table.snapshot() == (first + 1, {})


async def test_a_follower_gets_the_table_and_then_every_change(table: AnyTable) -> None:
    first = await table.put("f", Entry("h"))
    following = table.follow()
    assert await anext(following) == Reset(first, {"f": Entry("h")})
    await table.put("g", Entry("i"))
    await table.put("g", Entry("i"))
    await table.remove("f")
    assert await take(following, 2) == [FieldChange(first + 1, "g", Entry("i")), FieldChange(first + 2, "f", None)]


async def test_a_follower_far_behind_gets_the_whole_table(make_table: MakeTable) -> None:
    table = make_table(history=3)
    following = table.follow()
    await anext(following)
    for i in range(10):
        last = await table.put("f", Entry(f"h{i}"))
    assert await take(following, 1) == [Reset(last, {"f": Entry("h9")})]


async def test_all_followers_end_up_with_the_same(table: AnyTable) -> None:
    async def follow() -> dict[str, Entry]:
        copy: dict[str, Entry] = {}
        async for update in table.follow():
            if isinstance(update, Reset):
                copy = dict(update.entries)
            elif update.value is None:
                copy.pop(update.field, None)
            else:
                copy[update.field] = update.value
            if "end" in copy:
                return copy
        raise AssertionError("follow never ends")

    following = [asyncio.create_task(follow()) for _ in range(5)]
    for i in range(200):
        await table.put(f"f{i % 17}", Entry(f"h{i}"))
        await table.remove(f"f{i % 13}")
        if i % 50 == 0:
            following.append(asyncio.create_task(follow()))
    await table.put("end", Entry(""))
    expected = {field: value for field, (_, value) in (await table.snapshot())[1].items()}
    assert all(copy == expected for copy in await asyncio.gather(*following))


async def test_a_follower_counts_from_its_first_sign_of_life_until_it_leaves(table: AnyTable) -> None:
    assert await table.followers() == {}
    await table.acknowledge("one", 1)
    await table.acknowledge("two", 2)
    await table.acknowledge("one", 3)
    assert await table.followers() == {"one": 3, "two": 2}
    await table.leave("one")
    assert await table.followers() == {"two": 2}


async def test_acknowledgements_are_yielded_and_repetitions_are_not(table: AnyTable) -> None:
    await table.acknowledge("early", 1)
    acknowledgements = table.acknowledgements()
    assert await anext(acknowledgements) == ("early", 1)

    async def acknowledge() -> None:
        for version in (1, 1, 2, 3):
            await table.acknowledge("late", version)

    listening = asyncio.create_task(take(acknowledgements, 3))
    await acknowledge()
    assert await listening == [("late", 1), ("late", 2), ("late", 3)]


async def test_a_silent_follower_is_not_waited_for_in_memory() -> None:
    now = 100.0
    table = MemoryTable("t", Entry, clock=lambda: now)
    await table.acknowledge("one", 1)
    now += 5.1
    assert await table.followers() == {}


async def test_a_silent_follower_is_not_waited_for_on_redis(redis: RedisClient) -> None:
    async def has_run_for_a_while() -> bool:
        """All followers of a Redis that has just started are waited for."""
        return uptime(await redis.execute("INFO", "server")) > FOLLOWER_TTL

    await eventually(has_run_for_a_while)
    table = RedisTable(redis, "t", Entry)
    await table.acknowledge("alive", 1)
    seconds = int((await redis.execute("TIME"))[0])
    silent, gone = f"1 {seconds - 6}.0", f"1 {seconds - 99}.0"
    await redis.execute("HSET", "knoll:table:t:followers", "silent", silent, "gone", gone)
    assert await table.followers() == {"alive": 1}
    assert await redis.execute("HKEYS", "knoll:table:t:followers") == [b"alive", b"silent"]


async def test_the_version_of_a_table_is_that_of_its_last_change(table: AnyTable) -> None:
    assert await table.version() == 0
    first = await table.put("f", Entry("h"))
    assert await table.version() == first
    assert await table.remove("f") == await table.version()


async def test_an_entry_that_this_version_cannot_read_counts_as_missing(redis_url: str) -> None:
    """As of a newer version, which has more values of an enumeration: everything else in the table stays readable."""

    class Newer(msgspec.Struct):
        host: int

    redis = connect(redis_url)
    table, newer = RedisTable(redis, "t", Entry), RedisTable(redis, "t", Newer)
    await table.put("f", Entry("h"))
    await newer.put("g", Newer(1))
    following = table.follow()
    assert await anext(following) == Reset((await table.snapshot())[0], {"f": Entry("h")})
    version = await newer.put("f", Newer(2))
    assert await anext(following) == FieldChange(version, "f", None)
    assert (await table.snapshot())[1] == {}
    await following.aclose()  # type: ignore[attr-defined]
    await redis.aclose()
