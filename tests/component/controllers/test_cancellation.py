"""A task that is cancelled while it talks to Redis ends: leadership, the loop and every shutdown depend on that."""

import asyncio

import pytest

from knoll.redis.client import connected

pytestmark = pytest.mark.redis


async def test_every_cancelled_task_ends(redis_url: str) -> None:
    async with connected(redis_url) as redis:

        async def talk() -> None:
            while True:
                await redis.execute("SET", "some", "thing")

        for _ in range(30):
            tasks = [asyncio.create_task(talk()) for _ in range(16)]
            await redis.execute("PING")
            for task in tasks:
                task.cancel()
            _, alive = await asyncio.wait(tasks, timeout=5)
            for task in alive:
                task.cancel()
            assert not alive, "a cancellation was swallowed"
