"""Recent events in memory, read by any number of watchers at their own pace. Pure but for the waking.

Every version has exactly one event, so a version is a position, a missing one is seen at once, and a watcher needs no
queue of its own: one that falls behind the ring reads the store's history instead.
"""

import asyncio

from knoll.store.rules import Record

DECODED_RECORDS = 64
"""Newest records that are kept unpacked."""
WAKE_BATCH = 128
"""Watchers that are woken before others in this process get their turn: an event of thousands of watches takes most of
a second."""


class EventBuffer:
    """Records of every version after `floor` up to `tip`."""

    def __init__(self, size: int, limit: int = 0) -> None:
        """
        Args:
            size: records kept at least.
            limit: records that are reached before it is cut back to `size`; 0 is twice as many.
        """
        self._size = size
        self._limit = limit or 2 * size
        self._records: list[Record] = []
        self._waiting: dict[asyncio.Future[None], None] = {}
        self.floor = 0
        self.tip = 0
        self.running = False
        """Whether somebody appends; otherwise nobody may rely on it."""
        self.losses = 0
        """How often the store turned out to have lost what it had said: all watches end then."""

    def start(self, version: int) -> None:
        """Begin anew after `version`."""
        self._records.clear()
        self.floor = self.tip = version
        self.running = True

    def stop(self, *, lost: bool = False) -> None:
        self.running = False
        self.losses += lost
        self._wake()

    def append(self, records: list[Record]) -> bool:
        """Add what came next; False, with nothing added, when it does not join on."""
        if records[0].version != self.tip + 1 or records[-1].version != self.tip + len(records):
            return False
        self._records += records
        # Whoever keeps up has seen these.
        for record in self._records[-len(records) - DECODED_RECORDS : -DECODED_RECORDS]:
            record.forget()
        self.tip = records[-1].version
        if len(self._records) > self._limit:
            del self._records[: -self._size]
            self.floor = self._records[0].version - 1
        self._wake()
        return True

    def after(self, version: int) -> list[Record] | None:
        """What came after `version`; None when the ring cannot tell (any more)."""
        if not self.running or version < self.floor:
            return None
        return self._records[version - self.floor :] if version < self.tip else []

    async def wait_for_change(self) -> None:
        """Wait until anything changed."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[change] = None
        try:
            await change
        finally:
            self._waiting.pop(change, None)

    def last(self) -> Record | None:
        return self._records[-1] if self._records else None

    def _wake(self) -> None:
        waiting, self._waiting = list(self._waiting), {}
        _wake(waiting)


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for change in waiting[:WAKE_BATCH]:
        if not change.done():
            change.set_result(None)
    if rest := waiting[WAKE_BATCH:]:
        asyncio.get_running_loop().call_soon(_wake, rest)
