"""Clients of Redis: one way to make them, one way to wait for them, and their errors in our own terms."""

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
"""Connections of one client. A caller that finds all of them taken waits for one."""
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 10.0
"""How long an answer may take; above `BLOCK_MS`, which readers ask Redis to hold theirs back."""
BLOCK_MS = 4000
"""How long a blocking read waits for news, at most; below redis-py's own default of 5 s for an answer."""

UNAVAILABLE_ERRORS = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)
"""Errors that mean: Redis does not serve just now. Being loaded after a restart is one of them."""


def connect(url: str, name: str = "knoll") -> "Redis":
    """Make a client; it opens connections when they are needed.

    A command is never sent twice: a write whose answer was lost may have happened, and only the caller can tell what
    that means.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        name: shown by `CLIENT LIST`; no spaces.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=ANSWER_SECONDS,
        client_name=name,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    if sys.version_info < (3, 12):
        pool.connection_class = type("Connection", (_KeepsCancellations, pool.connection_class), {})
    return Redis.from_pool(pool)


class _KeepsCancellations:
    """Part of a connection: writes without `asyncio.wait_for`.

    redis-py writes each command within it. Before Python 3.12 it swallows a cancellation that comes just as the write
    has ended: the task lives on, and whoever waits for its end waits for ever. (It also costs a task for each command.)
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
    """A client that is closed at the end."""
    redis = connect(url, name)
    try:
        yield redis
    finally:
        await redis.aclose()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn Redis' refusals into ours. Raises: StoreUnavailableError, StoreForbiddenError."""
    try:
        yield
    except OutOfMemoryError as error:
        raise StoreFullError(
            "Redis takes no writes: it holds as much as it may (maxmemory; KNOLL_REDIS_MEMORY with Compose): delete "
            "objects, or give it more"
        ) from error
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailableError(f"Redis does not answer: {error}") from error
    except NoPermissionError as error:
        raise StoreForbiddenError(
            f"Redis refuses this to the user of this process: {error}; the users are made by `knoll up`, Compose or "
            "`knoll redis-acl`"
        ) from error
    except ResponseError as error:
        if "NOPERM" in str(error):  # refused to a command of a script
            raise StoreForbiddenError(f"Redis refuses this to the user of this process: {error}") from error
        # Its disk is full or broken, or its replicas are away: it refuses writes until that has changed.
        if "MISCONF" in str(error):
            raise StoreFullError(f"Redis takes no writes, because it cannot write its file: {error}") from error
        if "NOREPLICAS" in str(error):
            raise StoreUnavailableError(f"Redis takes no writes: {error}") from error
        raise


async def unsafe_settings(redis: "Redis") -> list[str]:
    """Say which settings of this Redis let it forget what it acknowledged; empty when none does or nobody may ask."""
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


Entry = tuple[bytes, dict[bytes, bytes]]
"""One entry of a stream: ID and fields."""


async def read_stream(redis: "Redis", key: str, after: str, count: int, block: int = BLOCK_MS) -> list[Entry]:
    """Entries of one stream after an ID; waits up to `block` milliseconds for the first, empty when none came."""
    # redis-py answers lists of pairs in RESP2 and, one level deeper, dictionaries in RESP3.
    response: Any = await redis.xread({key: after}, count=count, block=block)
    if isinstance(response, dict):
        return [entry for batches in response.values() for batch in batches for entry in batch]
    return [entry for _, batch in response for entry in batch]


def version_of(entry_id: bytes) -> int:
    """The version that an entry's ID `<version>-0` carries."""
    return int(entry_id.partition(b"-")[0])
