from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from knoll.redis.client import connect
from tests.component.activator.stage import Stage, staged
from tests.component.knoll.conftest import own_redis

__all__ = ["own_redis"]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as made:
        yield made


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator["Redis"]:
    client = connect(redis_url, "test")
    yield client
    await client.aclose()
