"""The proof of leadership in a leader's writes, where another Redis server may become the primary."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fence:
    """A lease as it was acquired. A write with it is refused once the lease has another holder or epoch."""

    key: str
    """Key of the lease."""
    value: str
    """Value of the key while the lease is held."""
    epoch: str
    """The epoch in which it was acquired."""


FENCE: ContextVar[Fence | None] = ContextVar("FENCE", default=None)
"""Set in all tasks of a leader's duty; None elsewhere."""
