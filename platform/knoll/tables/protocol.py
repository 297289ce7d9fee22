"""Replicated tables: one process publishes its state to others, which acknowledge the versions that they applied.

A table is a Redis hash with one writer (the leader of a duty) and many followers that hold a copy in memory. Every
change has a version; a follower acknowledges the newest version it applied. Followers keep their last copy while Redis
is unavailable. The names of all tables are in `knoll.messages`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reset(Generic[T]):
    """The whole table: sent to a follower first, and again after a gap in its history."""

    version: int
    entries: dict[str, T]


@dataclass(frozen=True, slots=True)
class FieldChange(Generic[T]):
    """The new value of one field; None if it was removed."""

    version: int
    field: str
    value: T | None


class Table(Protocol[T]):
    """One table. Values are frozen msgspec structs of the table's entry type."""

    async def put(self, field: str, value: T) -> int:
        """Set a field; returns the version since which it has this value (the old one if nothing changed)."""
        ...

    async def remove(self, field: str) -> int:
        """Remove a field; returns the version since which it is removed. Removing a missing field changes nothing."""
        ...

    async def snapshot(self) -> tuple[int, Mapping[str, tuple[int, T]]]:
        """The table's version, and each field's own version and value."""
        ...

    async def version(self) -> int:
        """The table's version; 0 without one. Every change of the table increases it."""
        ...

    def follow(self) -> AsyncIterator[Reset[T] | FieldChange[T]]:
        """A Reset, then every change in order, without end; waits while Redis is unavailable or does not permit it."""
        ...

    async def acknowledge(self, follower: str, version: int) -> None:
        """Acknowledge that `follower` has applied `version`; also its heartbeat, to be repeated every 2 s."""
        ...

    async def leave(self, follower: str) -> None:
        """Remove `follower`, which has stopped and need not be waited for."""
        ...

    async def followers(self) -> dict[str, int]:
        """Each live follower (with a heartbeat within `FOLLOWER_TTL`) and its acknowledged version."""
        ...

    def acknowledgements(self) -> AsyncIterator[tuple[str, int]]:
        """(follower, version) of each acknowledgement, without end."""
        ...


FOLLOWER_TTL = 5.0
"""Seconds without a heartbeat after which a follower is not waited for."""
