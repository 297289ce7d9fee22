"""Turns of the event loop, shared by connections that have more to read than one turn may take.

A few bytes of HTTP/2 may take long to read. All HTTP/2 connections together read for `SLICE_SECONDS` in one turn of the
loop; the rest waits for the next turns, in which the connections are read one after the other.
"""

import time
from collections import deque
from collections.abc import Callable

SLICE_SECONDS = 0.005
"""Time for reading HTTP/2 in one turn of the loop."""

Work = Callable[[float], bool]
"""Reads until a moment on the clock of `time.perf_counter`; says whether there is more."""


class ReadScheduler:
    """The readers of one event loop."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._queue: deque[Work] = deque()
        self._until = 0.0
        """End of the time for reading in this turn; 0 when nothing was read in it yet."""

    def run(self, work: Work) -> bool:
        """Read now, as far as this turn goes; the rest is read in the next turns. Says whether there is a rest."""
        if not self._until:
            self._until = time.perf_counter() + SLICE_SECONDS
            self._call_soon(self._next)
        if not self._queue and time.perf_counter() < self._until and not work(self._until):
            return False
        self._queue.append(work)
        return True

    def _next(self) -> None:
        """A new turn."""
        self._until = 0.0
        if not self._queue:
            return
        until = self._until = time.perf_counter() + SLICE_SECONDS
        self._call_soon(self._next)
        for _ in range(len(self._queue)):
            work = self._queue.popleft()
            if work(until):
                self._queue.append(work)
            if time.perf_counter() >= until:
                return
