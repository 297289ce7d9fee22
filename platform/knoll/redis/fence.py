"""The proof of leadership that a leader's writes carry, where another Redis may become the primary."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fence:
    """A lease as it was acquired. A write with it is refused once the lease is another's, or of another epoch."""

    key: str
    """Key of the lease."""
    value: str
    """What the key holds while the lease is held."""
    epoch: str
    """The epoch in which it was acquired."""


FENCE: ContextVar[Fence | None] = ContextVar("FENCE", default=None)
"""Set in all tasks of a leader's duty; None elsewhere."""
