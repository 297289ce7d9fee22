"""Replicated tables in memory, for tests. Pass the same suite as those on Redis."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from knoll.tables.protocol import FOLLOWER_TTL, FieldChange, Reset

T = TypeVar("T")


class MemoryTable(Generic[T]):
    """See `tables.Table`. All sides share the one object."""

    def __init__(
        self, name: str, entry: type[T], *, history: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            name, entry: as of `RedisTable`.
            history: changes kept; a follower that is further behind is given the whole table.
            clock: seconds, for heartbeats.
        """
        self.name = name
        self._clock = clock
        # Values go through JSON as they do on Redis, so that a test notices what would not survive it.
        self._encode = msgspec.json.Encoder(order="sorted").encode
        self._decode = msgspec.json.Decoder(entry).decode
        self._version = 0
        self._entries: dict[str, tuple[int, bytes]] = {}
        self._changes: deque[tuple[int, str, bytes | None]] = deque(maxlen=history)
        self._acks: dict[str, tuple[int, float]] = {}
        self._listeners: set[asyncio.Queue[tuple[str, int]]] = set()
        self._changed = asyncio.Event()

    async def put(self, field: str, value: T) -> int:
        data = self._encode(value)
        stored = self._entries.get(field)
        if stored is not None and stored[1] == data:
            return stored[0]
        version = self._count(field, data)
        self._entries[field] = (version, data)
        return version

    async def remove(self, field: str) -> int:
        if field in self._entries:
            del self._entries[field]
            return self._count(field, None)
        return self._version

    async def snapshot(self) -> tuple[int, Mapping[str, tuple[int, T]]]:
        return self._version, {field: (at, self._decode(data)) for field, (at, data) in self._entries.items()}

    async def version(self) -> int:
        return self._version

    async def follow(self) -> AsyncIterator[Reset[T] | FieldChange[T]]:
        tip: int | None = None
        while True:
            behind = None if tip is None else self._version - tip
            if behind is None or behind > len(self._changes):
                tip = self._version
                yield Reset(tip, {field: self._decode(data) for field, (_, data) in self._entries.items()})
            elif behind == 0:
                await self._changed.wait()
            else:
                tip, field, data = self._changes[-behind]
                yield FieldChange(tip, field, None if data is None else self._decode(data))

    async def acknowledge(self, follower: str, version: int) -> None:
        before = self._acks.get(follower)
        self._acks[follower] = (version, self._clock())
        if before is None or before[0] != version:
            for queue in self._listeners:
                queue.put_nowait((follower, version))

    async def leave(self, follower: str) -> None:
        self._acks.pop(follower, None)

    async def followers(self) -> dict[str, int]:
        now = self._clock()
        return {name: version for name, (version, seen) in self._acks.items() if now - seen <= FOLLOWER_TTL}

    async def acknowledgements(self) -> AsyncIterator[tuple[str, int]]:
        queue: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            for acknowledgement in (await self.followers()).items():
                yield acknowledgement
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    def _count(self, field: str, data: bytes | None) -> int:
        self._version += 1
        self._changes.append((self._version, field, data))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self._version
