"""Replicated tables: one process publishes its state to others, which acknowledge what they applied.

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
    """The whole table: the first thing a follower gets, and again after a gap in its history."""

    version: int
    entries: dict[str, T]


@dataclass(frozen=True, slots=True)
class FieldChange(Generic[T]):
    """One field's new value; None when it was removed."""

    version: int
    field: str
    value: T | None


class Table(Protocol[T]):
    """One table. Values are frozen msgspec structs of the type it was made with."""

    async def put(self, field: str, value: T) -> int:
        """Set a field; returns the version since which it has this value (the old one when nothing changed)."""
        ...

    async def remove(self, field: str) -> int:
        """Remove a field; returns the version since which it is gone. Removing what is not there changes nothing."""
        ...

    async def snapshot(self) -> tuple[int, Mapping[str, tuple[int, T]]]:
        """The table's version, and each field's own version and value."""
        ...

    def follow(self) -> AsyncIterator[Reset[T] | FieldChange[T]]:
        """A Reset, then every Change in order, for ever; waits out a Redis that is away."""
        ...

    async def acknowledge(self, follower: str, version: int) -> None:
        """Say that `follower` acts on `version`; also its sign of life, to be repeated each second."""
        ...

    async def leave(self, follower: str) -> None:
        """Say that `follower` has stopped and need not be waited for."""
        ...

    async def followers(self) -> dict[str, int]:
        """Each living follower (a sign of life within `FOLLOWER_TTL`) and the version it acknowledged."""
        ...

    def acknowledgements(self) -> AsyncIterator[tuple[str, int]]:
        """(follower, version) as they are acknowledged, for ever."""
        ...


FOLLOWER_TTL = 5.0
"""Seconds without a sign of life after which a follower is not waited for."""
