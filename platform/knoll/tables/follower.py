"""Keeps a dictionary equal to a replicated table.

For followers that act on single fields and do not acknowledge versions. The activator's follower
(`activator.sync.table_followers`) acknowledges each version and replaces its routing table as a whole after a `Reset`,
so it uses `Table.follow` directly.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from knoll.tables.protocol import FieldChange, Reset, Table

T = TypeVar("T")


async def follow_table(
    table: Table[T], entries: dict[str, T], changed: Callable[[str], object], synced: asyncio.Event
) -> None:
    """Follow a table until cancelled.

    Args:
        entries: the copy; mutated.
        changed: called with each field whose value in `entries` changed.
        synced: set once the table was read.
    """
    async for change in table.follow():
        for field in apply(change, entries):
            changed(field)
        synced.set()


def apply(change: Reset[T] | FieldChange[T], entries: dict[str, T]) -> set[str]:
    """Apply a change to a copy of the table, which is mutated; return the affected fields."""
    if isinstance(change, Reset):
        fields = entries.keys() | change.entries
        affected = {field for field in fields if entries.get(field) != change.entries.get(field)}
        entries.clear()
        entries.update(change.entries)
        return affected
    if change.value is None:
        entries.pop(change.field, None)
    else:
        entries[change.field] = change.value
    return {change.field}
