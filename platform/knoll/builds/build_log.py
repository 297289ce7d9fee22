"""The output of a build, line by line, during the build and for a week after it."""

from collections.abc import AsyncGenerator
from typing import Any

from redis.asyncio import Redis

from knoll.redis import keys

MAX_LINES = 20_000
"""Maximum number of lines per build; the oldest are dropped first."""
KEEP_SECONDS = 7 * 24 * 3600
BLOCK_MS = 5000

_LINE, _END = b"line", b"end"


class BuildLogWriter:
    """Used by the build worker that runs the job. A retry drops the output of earlier attempts."""

    def __init__(self, redis: "Redis", namespace: str, name: str) -> None:
        self._redis = redis
        self._key = keys.build_log(namespace, name)

    async def begin(self) -> None:
        await self._redis.delete(self._key)

    async def line(self, text: str) -> None:
        """Add one line, without its newline."""
        await self._redis.xadd(self._key, {_LINE: text}, maxlen=MAX_LINES, approximate=True)

    async def end(self) -> None:
        """Mark the end of the log."""
        await self._redis.xadd(self._key, {_END: 1})
        await self._redis.expire(self._key, KEEP_SECONDS)


async def read(
    redis: "Redis", namespace: str, name: str, *, follow: bool, newest: int | None = None
) -> AsyncGenerator[str | None, None]:
    """Yield each line of a build's log; with `follow`, wait for more until the build has ended.

    Yields None after a few seconds without a line, so that the caller can check whether its client is still connected.

    Args: newest: number of existing lines to start with, counted from the end.
    """
    key = keys.build_log(namespace, name)
    last = b"0-0" if newest is None else await _before(redis, key, newest)
    while True:
        # redis-py's return type covers all commands; an entry is (id, fields), all of it bytes.
        batches: Any = await redis.xread({key: last}, count=500, block=BLOCK_MS if follow else None)
        entries: list[tuple[bytes, dict[bytes, bytes]]] = [entry for _, stream in batches for entry in stream]
        if not entries and not follow:
            return
        if not entries:
            yield None
        for entry_id, fields in entries:
            if _END in fields:
                return
            last = entry_id
            yield fields[_LINE].decode(errors="replace")


async def _before(redis: "Redis", key: str, newest: int) -> bytes:
    """The id of the entry before the newest lines."""
    entries: Any = await redis.xrevrange(key, count=newest + 2)
    lines = [entry_id for entry_id, fields in entries if _LINE in fields]
    return lines[newest] if len(lines) > newest else b"0-0"
