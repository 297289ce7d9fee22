from collections.abc import AsyncIterator

import pytest

from activator.wire import http2_codecs
from activator.wire.http2_codec import CodecFactory
from knoll.redis.client import RedisClient, connect
from tests.component.activator.stage import Stage, staged
from tests.component.knoll.conftest import own_redis

__all__ = ["OVER_CODECS", "own_redis"]


CODECS: dict[str, CodecFactory] = {"h2": http2_codecs.h2, "ngh2": http2_codecs.ngh2}
OVER_CODECS = pytest.mark.parametrize("codec", CODECS, indirect=True)
"""Marks tests, or a module of them, that run over each codec of HTTP/2; all others run over the default one."""


@pytest.fixture
def codec(request: pytest.FixtureRequest) -> CodecFactory:
    return CODECS[request.param] if hasattr(request, "param") else http2_codecs.default


@pytest.fixture
async def stage(codec: CodecFactory) -> AsyncIterator[Stage]:
    async with staged(codec) as made:
        yield made


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    client = connect(redis_url, "test")
    yield client
    await client.aclose()
