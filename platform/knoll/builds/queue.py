"""Hands jobs to the builder, from an event loop.

RQ and its client of Redis block, so they run in a thread. They are loaded with the first build: 10 MB that an API
without builds does without.
"""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knoll.builds.rq_queue import RqQueue


class JobQueue:
    """Enqueues builds."""

    def __init__(self, redis_url: str, build_timeout_seconds: int = 1800) -> None:
        self._redis_url, self._build_timeout_seconds = redis_url, build_timeout_seconds
        self._queue: RqQueue | None = None

    async def build(self, namespace: str, name: str, uid: str) -> None:
        """Enqueue a Build. Raises: StoreUnavailableError."""
        await asyncio.to_thread(lambda: self._opened().build(namespace, name, uid))

    async def order(self) -> list[str]:
        """Uids of the queued Builds, the next one first. Raises: StoreUnavailableError."""
        return await asyncio.to_thread(lambda: self._opened().order())

    async def close(self) -> None:
        if self._queue is not None:
            await asyncio.to_thread(self._queue.close)

    def _opened(self) -> "RqQueue":
        from knoll.builds.rq_queue import RqQueue

        if self._queue is None:
            self._queue = RqQueue(self._redis_url, self._build_timeout_seconds)
        return self._queue
