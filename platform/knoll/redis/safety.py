"""Settings of Redis with which acknowledged writes may be lost."""

from knoll.redis.file_settings import SETTINGS, file_problems
from knoll.redis.reply_errors import RedisReplyError
from knoll.redis.single_client import RedisClient
from knoll.values.errors import KnollError


async def unsafe_settings(redis: RedisClient) -> list[str]:
    """List the settings with which Redis may lose acknowledged writes; empty if CONFIG is not permitted.

    With replicas, the settings of all servers and sentinels are read.
    """
    if redis.is_replicated:
        from knoll.redis.replicated.inspection import inspect  # not imported for a single Redis

        return await inspect(redis.where, redis.name)
    try:
        replied = await redis.execute("CONFIG", "GET", *SETTINGS)
    except (KnollError, RedisReplyError):
        return []
    return file_problems({name.decode(): value.decode() for name, value in replied.items()})
