"""Settings of Redis with which acknowledged writes may be lost."""

from knoll.redis.reply_errors import RedisReplyError
from knoll.redis.single_client import RedisClient
from knoll.values.errors import KnollError


async def unsafe_settings(redis: RedisClient) -> list[str]:
    """List the settings with which Redis may lose acknowledged writes; empty if CONFIG is not permitted."""
    try:
        names = ("maxmemory-policy", "maxmemory", "appendonly", "appendfsync")
        replied = await redis.execute("CONFIG", "GET", *names)
    except (KnollError, RedisReplyError):
        return []
    config = {name.decode(): value.decode() for name, value in replied.items()}
    problems = []
    if config.get("maxmemory", "0") != "0" and config.get("maxmemory-policy") != "noeviction":
        problems.append(f"maxmemory-policy is {config['maxmemory-policy']}: set it to noeviction")
    if config.get("appendonly") != "yes":
        problems.append("appendonly is off: set it to yes")
    elif config.get("appendfsync") != "always":
        problems.append(f"appendfsync is {config.get('appendfsync')}: set it to always")
    return problems
