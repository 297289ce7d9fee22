"""Writes fields of a table in the background: the newest value of each, repeated until it succeeds."""

import asyncio
from typing import Generic, TypeVar

import structlog

from knoll.concurrency.backoff import Backoff, until_available
from knoll.concurrency.pending_keys import PendingKeys
from knoll.tables.protocol import Table
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()
T = TypeVar("T")

CHECK_SECONDS = 30.0
"""Interval at which the table is compared with what was written: Redis may have lost it."""


class Outbox(Generic[T]):
    """The fields of a table that this process writes."""

    def __init__(self, table: Table[T]) -> None:
        self._table = table
        self.values: dict[str, T] = {}
        """By field: the values that are written or pending."""
        self._pending = PendingKeys[str]()
        """Written at once, because cold starts wait for it; changes during a write are written together after it."""
        self._version = 0

    def put(self, field: str, value: T) -> None:
        """Write a field, unless it has that value."""
        if self.values.get(field) != value:
            self.values[field] = value
            self._pending.mark(field)

    def remove(self, field: str) -> None:
        """Remove a field."""
        if self.values.pop(field, None) is not None:
            self._pending.mark(field)

    async def load(self) -> None:
        """Load what an earlier process has written; waits while Redis is unavailable."""
        version, stored = await until_available(self._table.snapshot, "table not read yet")
        self._version = version
        self.values = {field: value for field, (_, value) in stored.items()} | self.values

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            tasks.create_task(self._check())

    async def _write(self) -> None:
        backoff = Backoff()
        while True:
            due = await self._pending.batch()
            try:
                await asyncio.gather(*(self._write_field(field) for field in due))
                backoff.reset()
            except (StoreUnavailableError, StoreForbiddenError) as error:
                log.warning("table not written yet", error=str(error))
                self._pending.mark_first(due)
                await backoff.wait()

    async def _write_field(self, field: str) -> None:
        value = self.values.get(field)
        version = await (self._table.remove(field) if value is None else self._table.put(field, value))
        self._version = max(self._version, version)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                version = await self._table.version()
                if version == self._version:
                    continue
                self._version, stored = await self._table.snapshot()
            except StoreUnavailableError:
                continue
            except StoreForbiddenError as error:
                log.warning("table not compared", error=str(error))
                continue
            missing = [
                field for field, value in self.values.items() if field not in stored or stored[field][1] != value
            ]
            if missing:
                log.warning("table entries missing", fields=len(missing))
                self._pending.mark(*missing)
