"""Coalesced wake-ups: keys that changed wait in a set, and one loop processes them in batches."""

import asyncio
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class PendingKeys(Generic[K]):
    """Keys to process, in the order in which they were first marked. A key marked several times is processed once.

    For loops that read the current state of a key. `api.controllers.engine.work_queue` is another kind of queue: it
    hands keys to several workers, never one key to two of them, and delays each key on its own. A single flag needs
    only an `asyncio.Event`.
    """

    def __init__(self, gather_seconds: float = 0.0) -> None:
        """
        Args:
            gather_seconds: delay between the first mark and the batch, in which further marks are gathered.
        """
        self._gather_seconds = gather_seconds
        self._keys: dict[K, None] = {}
        self._marked = asyncio.Event()

    def __len__(self) -> int:
        return len(self._keys)

    def mark(self, *keys: K) -> None:
        """Add keys, and wake the loop."""
        self._keys.update(dict.fromkeys(keys))
        if self._keys:
            self._marked.set()

    def mark_first(self, keys: Iterable[K]) -> None:
        """Put keys back in front of the others, after a failure."""
        self._keys = {**dict.fromkeys(keys), **self._keys}
        if self._keys:
            self._marked.set()

    async def batch(self) -> list[K]:
        """Wait for a mark, gather, and take all keys."""
        await self._marked.wait()
        await asyncio.sleep(self._gather_seconds)
        self._marked.clear()
        keys, self._keys = list(self._keys), {}
        return keys

    async def next(self) -> K:
        """Wait for a mark, and take the key that was marked first."""
        await self._marked.wait()
        # Let other tasks run between two of thousands of keys.
        await asyncio.sleep(self._gather_seconds)
        key = next(iter(self._keys))
        del self._keys[key]
        if not self._keys:
            self._marked.clear()
        return key
