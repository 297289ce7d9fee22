"""Publishes the instances of each Revision to the API, for their Pods. Activators are notified first; bursts coalesce.

A Revision without instances has no entry and costs nothing.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from autoscaler.instances.transitions import LifecycleState
from autoscaler.revisions.revision_scaler import RevisionScaler
from knoll.concurrency.backoff import Backoff
from knoll.concurrency.pending_keys import PendingKeys
from knoll.messages.instances import RevisionInstances
from knoll.tables.protocol import Table
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

COALESCE_SECONDS = 0.1
"""Changes within this time are published together: an instance that starts meanwhile is published once, ready."""

PUBLISHED_TOGETHER = 32
"""Revisions whose instances are published concurrently."""


class InstancePublisher:
    """Keeps the table of instances up to date, while this process leads."""

    def __init__(self, table: Table[RevisionInstances], scalers: Callable[[str], Sequence[RevisionScaler]]) -> None:
        """
        Args:
            scalers: returns those of a Revision's name, the current one last.
        """
        self._table, self._scalers = table, scalers
        self._published: dict[str, RevisionInstances] = {}
        self._pending = PendingKeys[str](COALESCE_SECONDS)

    def mark(self, key: str) -> None:
        """A Revision's instances may have changed."""
        if key in self._published or any(scaler.instances for scaler in self._scalers(key)):
            self._pending.mark(key)

    def mark_all(self) -> None:
        """Publish everything again: the table may have been lost."""
        self._published = dict.fromkeys(self._published, RevisionInstances("", ()))
        for key in list(self._published):
            self.mark(key)

    async def run(self) -> None:
        """Publish until cancelled."""
        backoff = Backoff()
        while True:
            try:
                for key, (_, entry) in (await self._table.snapshot())[1].items():
                    self._published[key] = entry
                    self.mark(key)
                break
            except StoreUnavailableError:
                await backoff.wait()
        while True:
            due = await self._pending.batch()
            try:
                while due:
                    # Together, so that Redis syncs its file once.
                    results = await asyncio.gather(
                        *map(self._publish, due[:PUBLISHED_TOGETHER]), return_exceptions=True
                    )
                    for error in filter(None, results):
                        raise error
                    del due[:PUBLISHED_TOGETHER]
                backoff.reset()
            except StoreUnavailableError as error:
                log.warning("instances not published yet", error=str(error))
                self._pending.mark_first(due)
                await backoff.wait()

    async def _publish(self, key: str) -> None:
        scalers = self._scalers(key)
        instances = (instance for scaler in scalers for instance in scaler.instances.values())
        rows = [instance.row() for instance in instances if instance.state is not LifecycleState.REMOVED]
        if not rows:
            await self._table.remove(key)
            self._published.pop(key, None)
            return
        entry = RevisionInstances(scalers[-1].uid, tuple(sorted(rows, key=lambda row: row.name)))
        if self._published.get(key) != entry:
            await self._table.put(key, entry)
            self._published[key] = entry
