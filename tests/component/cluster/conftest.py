"""The API and the Redis of tests of several machines."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api import authority
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from tests.component.api.conftest import Running, serving


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    async with connected(redis_url, "test") as client:
        yield client


@pytest.fixture
async def api(redis: RedisClient, tmp_path: Path) -> AsyncIterator[Running]:
    settings = ApiSettings(uploads_dir=tmp_path / "uploads", state_dir=tmp_path / "state")
    store = RedisStore(redis)
    await authority.synchronise(store, settings.state_dir, datetime.now(UTC))
    async with serving(store, settings, redis) as running:
        yield running
    await store.close()
