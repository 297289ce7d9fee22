"""Creates Redis clients, reads streams, and translates Redis' errors into ours."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from knoll.values.errors import StoreForbiddenError, StoreFullError, StoreUnavailableError

log = structlog.get_logger()

MAX_CONNECTIONS = 256
"""Connections of one client. A caller waits when all are in use."""
CONNECT_SECONDS = 2.0
RESPONSE_SECONDS = 10.0
"""Timeout of a response; above `BLOCK_MS`, for which blocking reads delay theirs."""
BLOCK_MS = 4000
"""Maximum wait of a blocking read; below redis-py's default response timeout of 5 s."""

UNAVAILABLE_ERRORS = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)
"""Errors raised while Redis is unavailable, including while it loads its data after a restart."""


def connect(url: str, name: str = "knoll") -> "Redis":
    """Create a client, which opens connections on demand.

    Commands are never retried: a write whose response was lost may have happened, and only the caller knows what that
    means.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        name: shown by `CLIENT LIST`; no spaces.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=RESPONSE_SECONDS,
        client_name=name,
        socket_timeout=RESPONSE_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    if sys.version_info < (3, 12):
        pool.connection_class = type("Connection", (_KeepsCancellations, pool.connection_class), {})
    return Redis.from_pool(pool)


class _KeepsCancellations:
    """Mixin of connections: writes without `asyncio.wait_for`.

    redis-py wraps each write in it. Before Python 3.12 it swallows a cancellation that arrives just as the write ends,
    so that the task never ends. (It also costs a task for each command.)
    """

    socket_timeout: float | None

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        connection: Any = super()
        if not self.is_connected:  # type: ignore[attr-defined]
            await self.connect_check_health(check_health=False)  # type: ignore[attr-defined]
        if check_health:
            await self.check_health()  # type: ignore[attr-defined]
        kept, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(kept):
                await connection.send_packed_command(command, check_health=False)
        except TimeoutError as error:
            raise RedisTimeoutError("Timeout writing to socket") from error
        finally:
            self.socket_timeout = kept


@asynccontextmanager
async def connected(url: str, name: str = "knoll") -> AsyncIterator["Redis"]:
    """Create a client, and close it at the end."""
    redis = connect(url, name)
    try:
        yield redis
    finally:
        await redis.aclose()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate Redis' errors into ours. Raises: StoreUnavailableError, StoreFullError, StoreForbiddenError."""
    try:
        yield
    except OutOfMemoryError as error:
        raise StoreFullError(
            "Redis refuses writes: it reached its memory limit (maxmemory; KNOLL_REDIS_MEMORY with Compose): delete "
            "objects, or raise the limit"
        ) from error
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailableError(f"Redis is unavailable: {error}") from error
    except NoPermissionError as error:
        raise StoreForbiddenError(
            f"Redis does not permit this to the user of this process: {error}; `knoll up`, Compose "
            "and `knoll redis-acl` create the users"
        ) from error
    except ResponseError as error:
        if "NOPERM" in str(error):  # raised by a command of a script
            raise StoreForbiddenError(f"Redis does not permit this to the user of this process: {error}") from error
        # Writes are refused while the disk is full or broken, or replicas are missing.
        if "MISCONF" in str(error):
            raise StoreFullError(f"Redis refuses writes because it cannot write its file: {error}") from error
        if "NOREPLICAS" in str(error):
            raise StoreUnavailableError(f"Redis refuses writes: {error}") from error
        raise


async def unsafe_settings(redis: "Redis") -> list[str]:
    """List the settings with which Redis may lose acknowledged writes; empty if CONFIG is not permitted."""
    try:
        config: Any = await redis.config_get("maxmemory-policy", "maxmemory", "appendonly", "appendfsync")
    except RedisError:
        return []
    problems = []
    if config.get("maxmemory", "0") != "0" and config.get("maxmemory-policy") != "noeviction":
        problems.append(f"maxmemory-policy is {config['maxmemory-policy']}: set it to noeviction")
    if config.get("appendonly") != "yes":
        problems.append("appendonly is off: set it to yes")
    elif config.get("appendfsync") != "always":
        problems.append(f"appendfsync is {config.get('appendfsync')}: set it to always")
    return problems


StreamEntry = tuple[bytes, dict[bytes, bytes]]
"""One entry of a stream: ID and fields."""


async def read_stream(redis: "Redis", key: str, after: str, count: int, block: int = BLOCK_MS) -> list[StreamEntry]:
    """Read the entries of a stream after an ID; wait up to `block` milliseconds for the first; empty without one."""
    # redis-py returns lists of pairs with RESP2, and dictionaries of nested lists with RESP3.
    response: Any = await redis.xread({key: after}, count=count, block=block)
    if isinstance(response, dict):
        return [entry for batches in response.values() for batch in batches for entry in batch]
    return [entry for _, batch in response for entry in batch]


def version_of(entry_id: bytes) -> int:
    """Return the version in an entry's ID `<version>-0`."""
    return int(entry_id.partition(b"-")[0])
