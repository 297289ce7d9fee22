"""The output of a build, line by line, during the build and for a week after it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.redis.streams import StreamEntry, entry_of

MAX_LINES = 20_000
"""Maximum number of lines per build; the oldest are dropped first."""
KEEP_SECONDS = 7 * 24 * 3600
NOTHING_SECONDS = 5.0
"""How long to wait for a line before the caller is asked whether it is still there."""

_BATCH = 500
_LINE, _END = b"line", b"end"


class BuildLogWriter:
    """Used by the build worker that runs the job. A retry drops the output of earlier attempts."""

    def __init__(self, redis: RedisClient, namespace: str, name: str) -> None:
        self._redis = redis
        self._key = keys.build_log(namespace, name)

    async def begin(self) -> None:
        await self._redis.execute("DEL", self._key)

    async def line(self, text: str) -> None:
        """Add one line, without its newline."""
        await self._redis.execute("XADD", self._key, "MAXLEN", "~", MAX_LINES, "*", _LINE, text)

    async def end(self) -> None:
        """Mark the end of the log."""
        await self._redis.pipeline(("XADD", self._key, "*", _END, 1), ("EXPIRE", self._key, KEEP_SECONDS))


async def read(
    redis: RedisClient, namespace: str, name: str, *, follow: bool, newest: int | None = None
) -> AsyncGenerator[str | None, None]:
    """Yield each line of a build's log; with `follow`, wait for more until the build has ended.

    Yields None after a few seconds without a line, so that the caller can check whether its client is still connected.

    Args: newest: number of existing lines to start with, counted from the end.
    """
    key = keys.build_log(namespace, name)
    last = b"0-0" if newest is None else await _before(redis, key, newest)
    if not follow:
        while entries := await _after(redis, key, last):
            for entry_id, fields in entries:
                if _END in fields:
                    return
                last = entry_id
                yield fields[_LINE].decode(errors="replace")
        return
    reader = redis.streams.reader(key, last.decode())
    try:
        while True:
            try:
                entries = await asyncio.wait_for(reader.read(), NOTHING_SECONDS)
            except TimeoutError:
                entries = []
            if not entries:
                yield None
            for _, fields in entries:
                if _END in fields:
                    return
                yield fields[_LINE].decode(errors="replace")
    finally:
        reader.close()


async def _after(redis: RedisClient, key: str, last: bytes) -> list[StreamEntry]:
    replied: dict[bytes, list[Any]] | None = await redis.execute("XREAD", "COUNT", _BATCH, "STREAMS", key, last)
    return [entry_of(entry) for entries in (replied or {}).values() for entry in entries]


async def _before(redis: RedisClient, key: str, newest: int) -> bytes:
    """The id of the entry before the newest lines."""
    replied = await redis.execute("XREVRANGE", key, "+", "-", "COUNT", newest + 2)
    lines = [entry_id for entry_id, fields in map(entry_of, replied) if _LINE in fields]
    return lines[newest] if len(lines) > newest else b"0-0"
