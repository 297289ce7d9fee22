"""Divides the time for reading HTTP/2 among connections.

A few bytes of HTTP/2 can take long to process. All HTTP/2 connections together read for `SLICE_SECONDS` in one
iteration of the event loop; what is left is read in the next iterations, one connection after the other.
"""

import time
from collections import deque
from collections.abc import Callable

SLICE_SECONDS = 0.005
"""Time for reading HTTP/2 in one iteration of the loop."""

Reader = Callable[[float], bool]
"""Reads until a time of `time.perf_counter`; returns whether there is more."""


class ReadScheduler:
    """The readers of one event loop."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._queue: deque[Reader] = deque()
        self._until = 0.0
        """End of the slice in this iteration; 0 if nothing was read in it yet."""

    def run(self, reader: Reader) -> bool:
        """Read now, as far as the slice allows, and later what is left; returns whether anything is left."""
        if not self._until:
            self._until = time.perf_counter() + SLICE_SECONDS
            self._call_soon(self._next)
        if not self._queue and time.perf_counter() < self._until and not reader(self._until):
            return False
        self._queue.append(reader)
        return True

    def _next(self) -> None:
        """Start the slice of a new iteration."""
        self._until = 0.0
        if not self._queue:
            return
        until = self._until = time.perf_counter() + SLICE_SECONDS
        self._call_soon(self._next)
        for _ in range(len(self._queue)):
            reader = self._queue.popleft()
            if reader(until):
                self._queue.append(reader)
            if time.perf_counter() >= until:
                return
