"""A primary with a replica: acknowledged writes, epochs and leases. Sentinels: `test_redis_failover.py`."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from knoll.redis import keys
from knoll.redis.client import RedisClient, connect, connected
from knoll.redis.fence import FENCE, Fence
from knoll.redis.lease import Lease
from knoll.redis.replicated.scripts import VERSION_GAP
from knoll.store.redis_store import RedisStore
from knoll.tables.protocol import FieldChange, Reset
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import ConflictError, ExpiredError, StoreUnavailableError
from tests.component.knoll.conftest import RedisProcess, take
from tests.conftest import need
from tests.waiting import eventually

pytestmark = pytest.mark.redis
CM = "configmaps"


class Entry(msgspec.Struct, frozen=True):
    host: str


class Pair:
    """A primary and its replica."""

    def __init__(self, folder: Path) -> None:
        for name in ("primary", "replica"):
            (folder / name).mkdir()
        self.primary, self.replica = RedisProcess(folder / "primary"), RedisProcess(folder / "replica")
        self.primary.more = ("--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0")
        self.replica.more = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.url = f"{self.primary.url}?replicas=1"

    async def promote(self, client: RedisClient) -> None:
        """Make the primary one of another epoch, as a replica is that was promoted."""
        await client.execute("DEBUG", "CHANGE-REPL-ID")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    need("REDIS", shutil.which("redis-server") is not None)
    servers = Pair(tmp_path)
    servers.primary.start()
    servers.replica.start()
    yield servers
    servers.replica.close()
    servers.primary.close()


@pytest.fixture
async def plain(pair: Pair) -> AsyncIterator[RedisClient]:
    async with connected(pair.primary.url, "plain") as redis:
        yield redis


@pytest.fixture
async def client(pair: Pair) -> AsyncIterator[RedisClient]:
    redis = connect(pair.url, "test")
    await eventually(lambda: _answers(redis), condition="a replica")
    yield redis
    await redis.aclose()


async def _answers(redis: RedisClient) -> bool:
    try:
        return bool(await redis.execute("PING"))
    except StoreUnavailableError:
        return False


def body(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "a", "name": name, "uid": f"uid-{name}"}, "data": data}


async def another_epoch(pair: Pair, plain: RedisClient, client: RedisClient) -> None:
    before = client.epoch
    await pair.promote(plain)

    async def noticed() -> bool:
        await _answers(client)
        return client.epoch != before

    await eventually(noticed, condition="another epoch")
    await eventually(lambda: _answers(client))


async def test_what_was_acknowledged_is_on_the_replica(pair: Pair, client: RedisClient) -> None:
    store, table = RedisStore(client), RedisTable(client, "t", Entry)
    await asyncio.gather(*(store.create(CM, body(f"n{number}")) for number in range(50)))
    version = await table.put("f", Entry("h"))
    pair.primary.kill()
    async with connected(pair.replica.url) as replica:
        assert len((await RedisStore(replica).list(CM)).items) == 50
        assert await RedisTable(replica, "t", Entry).snapshot() == (version, {"f": (version, Entry("h"))})


async def test_a_write_that_no_replica_confirms_is_not_acknowledged(
    pair: Pair, client: RedisClient, plain: RedisClient
) -> None:
    store, table = RedisStore(client), RedisTable(client, "t", Entry)
    await store.create(CM, body("x"))
    pair.replica.signal(signal.SIGSTOP)
    writes = (
        store.create(CM, body("y")),
        table.put("f", Entry("h")),
        client.write(("SET", keys.TOKEN_KEY, "k")),
    )
    for result in await asyncio.gather(*writes, return_exceptions=True):
        assert isinstance(result, StoreUnavailableError)
        assert "0 of 1 replicas confirmed a write" in str(result)
    assert await RedisStore(plain).get(CM, "a", "y"), "it may have happened"
    pair.replica.signal(signal.SIGCONT)

    async def written() -> bool:
        try:
            return bool(await store.update(CM, body("x", k="2")))
        except StoreUnavailableError:
            return False

    await eventually(written)


async def test_a_primary_without_its_replicas_is_not_read(pair: Pair, client: RedisClient) -> None:
    store = RedisStore(client)
    await store.create(CM, body("x"))
    pair.replica.kill()

    async def refused() -> bool:
        try:
            await store.get(CM, "a", "x")
        except StoreUnavailableError as error:
            return "has 0 of 1 replicas" in str(error)
        return False

    await eventually(refused)
    await asyncio.to_thread(pair.replica.start)
    assert (await eventually(lambda: _read(store)))["data"] == {}


async def _read(store: RedisStore) -> dict[str, Any]:
    try:
        return await store.get(CM, "a", "x")
    except StoreUnavailableError as error:
        raise AssertionError(str(error)) from error


async def test_a_conflict_and_a_missing_script_are_what_they_are_with_one_redis(
    client: RedisClient, plain: RedisClient
) -> None:
    store = RedisStore(client)
    first = await store.create(CM, body("x"))
    await plain.execute("SCRIPT", "FLUSH")
    await store.update(CM, body("x", k="1"))
    stale = body("x", k="2")
    stale["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"]
    with pytest.raises(ConflictError):
        await store.update(CM, stale)


async def test_in_another_epoch_versions_rise_and_watches_end(
    pair: Pair, client: RedisClient, plain: RedisClient
) -> None:
    store = RedisStore(client)
    await store.create(CM, body("x"))
    before = await store.version()
    watch = store.watch(before - 1)
    await anext(watch)
    following = asyncio.create_task(take(watch, 1))
    await another_epoch(pair, plain, client)
    with pytest.raises(ExpiredError):  # although nothing was written since
        await following
    listing = await store.list(CM)
    assert listing.version > before + VERSION_GAP - 1
    resumed = store.watch(listing.version)
    written = await store.create(CM, body("y"))
    assert (await take(resumed, 1))[0].body == written
    for since in (before - 1, before, before + 1):
        with pytest.raises(ExpiredError):
            await take(store.watch(since), 2)
    await store.close()


async def test_versions_rise_above_a_clock_that_is_behind(pair: Pair, client: RedisClient, plain: RedisClient) -> None:
    store, table = RedisStore(client), RedisTable(client, "t", Entry)
    ahead = 10**13
    await plain.execute("SET", keys.RESOURCE_VERSION, ahead)
    await plain.execute("SET", keys.table_version("t"), ahead)
    await another_epoch(pair, plain, client)
    created = await store.create(CM, body("x"))
    assert int(created["metadata"]["resourceVersion"]) == ahead + VERSION_GAP + 1
    assert await table.put("f", Entry("h")) == ahead + VERSION_GAP + 1
    assert await table.put("g", Entry("h")) == ahead + VERSION_GAP + 2


async def test_a_follower_gets_the_whole_table_after_the_first_change_of_an_epoch(
    pair: Pair, client: RedisClient, plain: RedisClient
) -> None:
    table = RedisTable(client, "t", Entry)
    first = await table.put("f", Entry("h"))
    async with aclosing(table.follow()) as changes:  # type: ignore[type-var]
        assert await anext(changes) == Reset(first, {"f": Entry("h")})
        await another_epoch(pair, plain, client)
        assert await table.remove("missing") == first, "what changes nothing has no version of its own"
        second = await table.put("g", Entry("i"))
        assert second > first + VERSION_GAP - 1
        assert await anext(changes) == Reset(second, {"f": Entry("h"), "g": Entry("i")})
        third = await table.put("g", Entry("j"))
        assert await anext(changes) == FieldChange(third, "g", Entry("j"))


async def test_followers_are_waited_for_when_their_heartbeats_were_lost_with_a_primary(
    pair: Pair, client: RedisClient, plain: RedisClient
) -> None:
    table = RedisTable(client, "t", Entry)
    await table.acknowledge("me", 3)
    seconds = int((await plain.execute("TIME"))[0])
    await plain.execute("HSET", keys.table_followers("t"), "me", f"3 {seconds - 100}.0")
    await another_epoch(pair, plain, client)
    assert await table.followers() == {"me": 3}


async def test_a_client_of_a_previous_epoch_cannot_write(pair: Pair, client: RedisClient, plain: RedisClient) -> None:
    store = RedisStore(client)
    await store.create(CM, body("x"))
    await plain.execute("SET", keys.EPOCH, f"{'0' * 40} 0")
    with pytest.raises(StoreUnavailableError, match="STALEEPOCH"):
        await store.create(CM, body("y"))
    stored = await plain.execute("HKEYS", keys.objects(CM))
    assert stored == [b"a/x"]


async def test_what_a_leader_writes_is_refused_once_the_lease_is_not_the_stored_one(
    client: RedisClient, plain: RedisClient
) -> None:
    store = RedisStore(client)
    wrote = asyncio.Event()
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def duty() -> None:
        await store.create(CM, body("mine"))
        wrote.set()
        await asyncio.sleep(0)
        while True:
            try:
                await asyncio.create_task(store.update(CM, body("mine", at=str(asyncio.get_running_loop().time()))))
            except StoreUnavailableError as error:
                refused.set_result(str(error))
                await asyncio.Event().wait()

    leading = asyncio.create_task(Lease(client, "d", "a", ttl=30).lead(duty))
    await wrote.wait()
    await plain.execute("SET", keys.lease("d"), "other 1")
    assert "STALELEASE" in await asyncio.wait_for(refused, 10)
    await store.create(CM, body("of a request"))
    leading.cancel()


async def test_a_leader_gives_its_lease_up_in_another_epoch_and_may_have_it_again_at_once(
    pair: Pair, client: RedisClient, plain: RedisClient
) -> None:
    terms: list[str] = []

    async def duty() -> None:
        fence = FENCE.get()
        assert isinstance(fence, Fence)
        terms.append(fence.epoch)
        await asyncio.Event().wait()

    leading = asyncio.create_task(Lease(client, "d", "a", ttl=600).lead(duty))
    await eventually(lambda: len(terms) == 1)
    await another_epoch(pair, plain, client)
    await eventually(lambda: len(terms) == 2)
    assert terms[1] == client.epoch != terms[0]
    assert await Lease(client, "d", "b").holder() == "a"
    leading.cancel()


async def test_a_lease_that_a_promoted_replica_lacks_is_free_only_after_its_time(
    pair: Pair, client: RedisClient, plain: RedisClient
) -> None:
    await another_epoch(pair, plain, client)
    leading = asyncio.Event()

    async def duty() -> None:
        leading.set()

    waiting = asyncio.create_task(Lease(client, "d", "b", ttl=600).lead(duty))
    short = asyncio.create_task(Lease(client, "e", "b", ttl=1).lead(duty))
    await asyncio.wait_for(leading.wait(), 20)
    await short
    assert not waiting.done(), "a leader of the previous epoch may still have it"
    waiting.cancel()


async def test_the_expiry_of_a_lease_is_never_longer_than_its_time(client: RedisClient, plain: RedisClient) -> None:
    await plain.execute("SET", keys.lease("d"), "dead 1", "PX", 3_600_000)  # by a clock that was an hour ahead
    done = asyncio.Event()

    async def duty() -> None:
        done.set()

    await asyncio.wait_for(Lease(client, "d", "b", ttl=0.5).lead(duty), 20)
    assert done.is_set()
