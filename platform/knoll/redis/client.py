"""The client of Redis of every process: of one Redis, or of a primary with replicas."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from knoll.redis import address
from knoll.redis.single_client import RedisClient, Script
from knoll.redis.streams import GATHER_SECONDS

__all__ = ["RedisClient", "Script", "connect", "connected"]


def connect(url: str, name: str = "knoll", *, gather_seconds: float = GATHER_SECONDS) -> RedisClient:
    """Create a client, within a running event loop.

    Args:
        url: see `knoll.redis.address`.
        name: shown by `CLIENT LIST`; no spaces.
        gather_seconds: see `streams`.

    Raises: ValueError: the URL is invalid.
    """
    where = address.parse(url)
    if where.is_replicated:
        from knoll.redis.replicated.client import ReplicatedClient  # not imported for a single Redis

        return ReplicatedClient(where, name, gather_seconds)
    return RedisClient(where, name, gather_seconds)


@asynccontextmanager
async def connected(
    url: str, name: str = "knoll", *, gather_seconds: float = GATHER_SECONDS
) -> AsyncIterator[RedisClient]:
    """Create a client, and close it at the end."""
    redis = connect(url, name, gather_seconds=gather_seconds)
    try:
        yield redis
    finally:
        await redis.aclose()
