"""A cache of results for the last few heads of a connection: clients and instances mostly repeat their heads."""

from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_HEADS = 8
"""Limit of heads in each cache; the cache is cleared when it is exceeded."""


class Memo(dict[K, V]):
    """A dictionary of bounded size; its user adds entries with `keep`."""

    def keep(self, key: K, value: V) -> None:
        """Add an entry."""
        if len(self) >= MAX_HEADS:
            self.clear()
        self[key] = value
