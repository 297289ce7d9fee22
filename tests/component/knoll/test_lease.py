"""One leader at a time, and soon another one after it ends."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from knoll.redis.client import RedisClient, connect
from knoll.redis.lease import Lease
from tests.component.knoll.conftest import RedisProcess
from tests.waiting import eventually


class Duty:
    """Done for ever; knows who does it."""

    def __init__(self) -> None:
        self.doing: list[str] = []
        self.most = 0
        self.times = 0

    async def do(self, holder: str) -> None:
        self.doing.append(holder)
        self.times += 1
        self.most = max(self.most, len(self.doing))
        try:
            await asyncio.Event().wait()
        finally:
            self.doing.remove(holder)


@pytest.fixture
async def client(own_redis: RedisProcess) -> AsyncIterator[RedisClient]:
    redis = connect(own_redis.url)
    yield redis
    await redis.aclose()


async def test_one_of_many_leads_and_the_next_takes_over_immediately(redis: RedisClient) -> None:
    duty = Duty()
    leases = {name: Lease(redis, "d", name, ttl=60) for name in "abcd"}
    tasks = {
        name: asyncio.create_task(lease.lead(lambda name=name: duty.do(name)))  # type: ignore[misc]
        for name, lease in leases.items()
    }
    for _ in range(len(leases)):
        (leader,) = await eventually(lambda: duty.doing[:1])
        assert [name for name, lease in leases.items() if lease.leading] == [leader]
        assert await leases[leader].holder() == leader
        tasks[leader].cancel()
        await asyncio.wait({tasks[leader]})
        assert duty.doing != [leader]
    assert duty.most == 1
    assert await leases["a"].holder() == ""


async def test_a_standby_takes_over_from_one_that_is_gone(redis: RedisClient) -> None:
    await redis.execute("SET", "knoll:lease:d", "dead 1", "PX", 300)
    duty = Duty()
    leading = asyncio.create_task(Lease(redis, "d", "b", ttl=60).lead(lambda: duty.do("b")))
    await eventually(lambda: duty.doing == ["b"])
    leading.cancel()


async def test_a_lease_is_kept_beyond_its_life(redis: RedisClient) -> None:
    duty = Duty()
    leading = asyncio.create_task(Lease(redis, "d", "a", ttl=0.3).lead(lambda: duty.do("a")))
    await eventually(lambda: duty.doing == ["a"])
    started = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() > started + 1)
    assert duty.times == 1
    leading.cancel()


async def test_the_duty_ends_when_another_has_the_lease(redis: RedisClient) -> None:
    duty = Duty()
    leading = asyncio.create_task(Lease(redis, "d", "a", ttl=0.5).lead(lambda: duty.do("a")))
    await eventually(lambda: duty.doing == ["a"])
    await redis.execute("SET", "knoll:lease:d", "other 1", "PX", 200)
    await eventually(lambda: duty.doing == [])
    await eventually(lambda: duty.doing == ["a"], condition="leading again")
    assert duty.times == 2
    leading.cancel()


async def test_the_duty_ends_in_time_while_redis_hangs_and_begins_again_after(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    duty = Duty()
    leading = asyncio.create_task(Lease(client, "d", "a", ttl=0.6).lead(lambda: duty.do("a")))
    await eventually(lambda: duty.doing == ["a"])
    own_redis.signal(signal.SIGSTOP)
    await eventually(lambda: duty.doing == [])
    own_redis.signal(signal.SIGCONT)
    await eventually(lambda: duty.doing == ["a"])
    assert duty.times == 2
    leading.cancel()


async def test_a_leader_leads_again_after_a_kill_of_redis(own_redis: RedisProcess, client: RedisClient) -> None:
    duty = Duty()
    leading = asyncio.create_task(Lease(client, "d", "a", ttl=0.5).lead(lambda: duty.do("a")))
    await eventually(lambda: duty.doing == ["a"])
    own_redis.kill()
    await eventually(lambda: duty.doing == [])
    await asyncio.to_thread(own_redis.start)
    await eventually(lambda: duty.doing == ["a"])
    leading.cancel()


async def test_a_duty_that_ends_gives_the_lease_back(redis: RedisClient) -> None:
    async def nothing() -> None:
        return

    async def broken() -> None:
        raise ValueError("broken")

    lease = Lease(redis, "d", "a", ttl=60)
    await lease.lead(nothing)
    with pytest.raises(ValueError, match="broken"):
        await lease.lead(broken)
    assert await lease.holder() == ""
