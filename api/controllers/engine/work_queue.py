"""The queue of keys to reconcile: each key once, one worker per key, retries with back-off. No I/O, no decisions."""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

from api.controllers.engine.arrival_order import Rank
from api.controllers.reconciler.actions import ObjectKey

FIRST_BACKOFF = 0.02
LONGEST_BACKOFF = 60.0


class WorkQueue:
    """A key that is added while a worker holds it is queued again afterwards; a key that is queued is not added twice.

    Not safe for use from several event loops. Source: Kubernetes, `client-go/util/workqueue` (behaviour).
    """

    def __init__(
        self,
        jitter: Callable[[], float] = random.random,
        rank: Callable[[ObjectKey, bool], Rank] | None = None,
    ) -> None:
        """
        Args:
            jitter: returns 0 to 1; a delay grows by up to half of itself, so that retries spread.
            rank: returns the rank of a key that is added, in the background or not; by default the order of addition.
        """
        self._rank = rank or (lambda _, in_background: Rank(in_background, 0))
        self._count = itertools.count()
        self._ready: list[tuple[Rank, int, ObjectKey]] = []
        """A heap; an entry counts if its rank is the one in `_queued`."""
        self._queued: dict[ObjectKey, Rank] = {}
        self._working: set[ObjectKey] = set()
        self._again: set[ObjectKey] = set()
        self._failures: dict[ObjectKey, int] = {}
        self._timers: dict[ObjectKey, asyncio.TimerHandle] = {}
        self._wake: deque[asyncio.Future[None]] = deque()
        self._jitter = jitter

    def __len__(self) -> int:
        """Keys that are waiting for a worker."""
        return len(self._queued)

    @property
    def idle(self) -> bool:
        """Whether no key is queued or held by a worker; timers may run."""
        return not self._queued and not self._working

    def add(self, key: ObjectKey, *, in_background: bool = False) -> None:
        """Queue a key. Args: in_background: after all keys that changed."""
        self._cancel_timer(key)
        if key in self._working:
            self._again.add(key)
            return
        rank, before = self._rank(key, in_background), self._queued.get(key)
        if before is None or rank < before:
            self._queued[key] = rank
            heapq.heappush(self._ready, (rank, next(self._count), key))
            if before is None:
                self._wake_one()

    def add_after(self, key: ObjectKey, seconds: float) -> None:
        """Queue a key after a delay, unless it is queued already or due earlier."""
        if key in self._queued:
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + seconds:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: ObjectKey) -> float:
        """Queue a key again after a failure; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(FIRST_BACKOFF * 2.0 ** min(failures, 20), LONGEST_BACKOFF) * (1 + self._jitter() / 2)
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: ObjectKey) -> None:
        """Reset the back-off of a key."""
        self._failures.pop(key, None)

    async def get(self) -> ObjectKey:
        """Wait for a key; `done` must follow."""
        while not self._queued:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wake.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # The wake-up of a cancelled worker is passed on to the next one.
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
        while True:
            rank, _, key = heapq.heappop(self._ready)
            if self._queued.get(key) == rank:
                del self._queued[key]
                self._working.add(key)
                return key

    def hold(self, key: ObjectKey) -> bool:
        """Take a key for a caller that reconciles it together with another one; `done` must follow.

        Returns: False if a worker holds it.
        """
        if key in self._working:
            return False
        self._queued.pop(key, None)
        self._cancel_timer(key)
        self._working.add(key)
        return True

    def done(self, key: ObjectKey) -> None:
        """Release a key after its reconciliation, successful or not."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> set[ObjectKey]:
        """Drop all queued keys and timers, and return them."""
        dropped = {*self._queued, *self._again, *self._timers}
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._queued.clear()
        self._again.clear()
        return dropped

    def _due(self, key: ObjectKey) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: ObjectKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _wake_one(self) -> None:
        while self._wake:
            waiter = self._wake.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
