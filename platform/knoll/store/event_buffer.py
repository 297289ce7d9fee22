"""A buffer of recent events in memory, which any number of watchers read at their own pace.

Every version has exactly one event, so a version is a position in the buffer, a gap is noticed immediately, and a
watcher needs no queue: one that falls behind the buffer reads the store's history instead (`event_feed`). Only waiting
watchers touch the event loop; nothing here does I/O.
"""

import asyncio
from collections.abc import Set

from knoll.store.rules import Record

DECODED_RECORDS = 64
"""Number of the newest records that stay decoded."""
WAKE_BATCH = 128
"""Watchers that are woken before other tasks run: waking thousands of watches takes most of a second."""


class EventBuffer:
    """Records of every version after `floor` up to `tip`."""

    def __init__(self, size: int, limit: int = 0) -> None:
        """
        Args:
            size: minimum number of records.
            limit: number of records at which it is cut back to `size`; 0 is twice `size`.
        """
        self._size = size
        self._limit = limit or 2 * size
        self._records: list[Record] = []
        self._waiting: dict[asyncio.Future[int], Set[str] | None] = {}
        """Future of each waiting watcher to the kinds that it waits for; None for all kinds."""
        self.floor = 0
        self.tip = 0
        self.running = False
        """Whether a reader appends events; otherwise the content may be outdated."""
        self.losses = 0
        """How often the store lost events that it had already delivered; all watches end then."""

    def start(self, version: int) -> None:
        """Clear the buffer, and continue after `version`."""
        self._records.clear()
        self.floor = self.tip = version
        self.running = True

    def stop(self, *, lost: bool = False) -> None:
        self.running = False
        self.losses += lost
        self._wake(list(self._waiting), self.tip)

    def append(self, records: list[Record]) -> bool:
        """Append the next records; return False, and append nothing, if there is a gap before them."""
        if records[0].version != self.tip + 1 or records[-1].version != self.tip + len(records):
            return False
        before = self.tip
        self._records += records
        # Watchers that keep up have read these.
        for record in self._records[-len(records) - DECODED_RECORDS : -DECODED_RECORDS]:
            record.forget()
        self.tip = records[-1].version
        if len(self._records) > self._limit:
            del self._records[: -self._size]
            self.floor = self._records[0].version - 1
        changed = {record.resource for record in records}
        due = [change for change, of in self._waiting.items() if of is None or not changed.isdisjoint(of)]
        self._wake(due, before)
        return True

    def after(self, version: int) -> list[Record] | None:
        """Return the records after `version`; None if the buffer does not reach back to it."""
        if not self.running or version < self.floor:
            return None
        return self._records[version - self.floor :] if version < self.tip else []

    async def wait_for_change(self, resources: Set[str] | None = None) -> int:
        """Wait until a record of one of these kinds is appended, or the buffer stops.

        Args: resources: the kinds; None for any.

        Returns: a version up to which no record that was appended since the call is of these kinds.
        """
        change: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[change] = resources
        try:
            return await change
        finally:
            self._waiting.pop(change, None)

    def last(self) -> Record | None:
        return self._records[-1] if self._records else None

    def _wake(self, due: list[asyncio.Future[int]], version: int) -> None:
        for change in due:
            del self._waiting[change]
        _wake(due, version)


def _wake(waiting: list[asyncio.Future[int]], version: int) -> None:
    for change in waiting[:WAKE_BATCH]:
        if not change.done():
            change.set_result(version)
    if rest := waiting[WAKE_BATCH:]:
        asyncio.get_running_loop().call_soon(_wake, rest, version)
