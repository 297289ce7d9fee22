"""The queue of builds in a real Redis: namespaces take turns, and the place that users see is the real one."""

import asyncio

from knoll.builds.queue import JobQueue
from knoll.redis import keys
from knoll.redis.client import RedisClient, connected


async def taken(redis: RedisClient) -> str:
    """The uid of the job that a worker takes next."""
    job_id = await redis.execute("LPOP", f"rq:queue:{keys.BUILD_JOBS}")
    assert isinstance(job_id, bytes)
    return job_id.decode().rpartition("_")[2]


async def test_a_namespace_with_many_builds_does_not_delay_another(redis_url: str) -> None:
    queue = JobQueue(redis_url)
    async with connected(redis_url) as redis:
        for number in range(4):
            await queue.build("busy", f"b{number}", f"busy{number}")
        await queue.build("quiet", "q0", "quiet0")
        assert await queue.order() == ["busy0", "quiet0", "busy1", "busy2", "busy3"]
        assert await taken(redis) == "busy0"
        await redis.execute("HSET", keys.BUILD_TURNS, "busy", 1.0)
        await queue.build("third", "t0", "third0")
        assert await queue.order() == ["quiet0", "third0", "busy1", "busy2", "busy3"]
        await queue.build("third", "t0", "third0")
        assert len(await queue.order()) == 5, "asked for twice, it waits once"
    await queue.close()


async def test_nothing_is_lost_while_builds_are_added_and_taken_concurrently(redis_url: str) -> None:
    queues = [JobQueue(redis_url) for _ in range(3)]
    names = [(f"ns{number % 5}", f"uid{number}") for number in range(60)]
    async with connected(redis_url) as redis:

        async def add(at: int) -> None:
            for namespace, uid in names[at::3]:
                await queues[at].build(namespace, uid, uid)

        async def take() -> list[str]:
            return [await taken(redis) for _ in range(20) if await redis.execute("LLEN", f"rq:queue:{keys.BUILD_JOBS}")]

        async with asyncio.TaskGroup() as group:
            for at in range(3):
                group.create_task(add(at))
            early = group.create_task(take())
        assert sorted(early.result() + await queues[0].order()) == sorted(uid for _, uid in names)
    for queue in queues:
        await queue.close()
