"""The platform's token key in a real Redis."""

import asyncio

import pytest

from knoll.auth import token_key, tokens
from knoll.redis import keys
from knoll.redis.client import RedisClient, connected


@pytest.mark.redis
async def test_the_first_process_creates_the_key_that_all_sign_with(redis_url: str) -> None:
    async with connected(redis_url, "test") as redis:
        keys_read = await asyncio.gather(*(token_key.shared_key(redis) for _ in range(10)))
    assert len({key.pem for key in keys_read}) == 1
    token = tokens.mint(keys_read[0], namespace="team", name="robot", uid="u", now=1_800_000_000)
    assert tokens.verify(keys_read[1], token, 1_800_000_001).uid == "u"


@pytest.mark.redis
async def test_an_invalid_key_is_reported_and_not_replaced(redis_url: str) -> None:
    async with connected(redis_url, "test") as redis:
        await _spoil(redis)
        with pytest.raises(ValueError, match="token key"):
            await token_key.shared_key(redis)
        assert await redis.execute("GET", keys.TOKEN_KEY) == b"spoilt"


async def _spoil(redis: RedisClient) -> None:
    await redis.execute("SET", keys.TOKEN_KEY, "spoilt")
