"""Telling the API what each instance does, beside the work: activators hear first, and of a burst only its end is told.

A Revision without instances has no entry and costs nothing.
"""

from collections.abc import Callable, Sequence

import structlog

from autoscaler.revisions.revision_scaler import Scaler
from knoll.concurrency.backoff import Backoff
from knoll.concurrency.pending_keys import PendingKeys
from knoll.messages.instances import RevisionInstances
from knoll.tables.protocol import Table
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

GATHER_SECONDS = 0.1
"""Changes are gathered for so long: an instance that starts in that time is told once, ready."""


class Showing:
    """Keeps the table of instances like the scalers, while this process leads."""

    def __init__(self, table: Table[RevisionInstances], scalers: Callable[[str], Sequence[Scaler]]) -> None:
        """
        Args:
            scalers: those of a Revision's name, the current one last.
        """
        self._table, self._scalers = table, scalers
        self._told: dict[str, RevisionInstances] = {}
        self._pending = PendingKeys[str](GATHER_SECONDS)

    def mark(self, key: str) -> None:
        """Something of a Revision's instances may be another."""
        if key in self._told or any(scaler.members for scaler in self._scalers(key)):
            self._pending.mark(key)

    def mark_all(self) -> None:
        """Tell everything anew: the table may have been lost."""
        known, self._told = self._told, dict.fromkeys(self._told, RevisionInstances("", ()))
        for key in known:
            self.mark(key)

    async def run(self) -> None:
        """Tell until cancelled."""
        backoff = Backoff()
        while True:
            try:
                for key, (_, entry) in (await self._table.snapshot())[1].items():
                    self._told[key] = entry
                    self.mark(key)
                break
            except StoreUnavailableError:
                await backoff.wait()
        while True:
            due = dict.fromkeys(await self._pending.batch())
            try:
                for key in list(due):
                    await self._tell(key)
                    del due[key]
                backoff.reset()
            except StoreUnavailableError as error:
                log.warning("instances not told yet", error=str(error))
                self._pending.mark_first(due)
                await backoff.wait()

    async def _tell(self, key: str) -> None:
        scalers = self._scalers(key)
        rows = [member.row() for scaler in scalers for member in scaler.members.values() if member.stage != "gone"]
        if not rows:
            await self._table.remove(key)
            self._told.pop(key, None)
            return
        entry = RevisionInstances(scalers[-1].uid, tuple(sorted(rows, key=lambda row: row.name)))
        if self._told.get(key) != entry:
            await self._table.put(key, entry)
            self._told[key] = entry
