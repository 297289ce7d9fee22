"""What the leading autoscaler assigns to nodes: instances, and what to keep ready for cold starts. Pure.

A platform on a single machine has neither table: leader and node are one process.
"""

from typing import Literal

import msgspec

ASSIGNMENTS = "assignments"
"""Name of the table of `Assignment`. Field: name of the instance. Writer: the leading autoscaler."""

PREPARATIONS = "preparations"
"""Name of the table of `Preparation`. Field: name of the node. Writer: the leading autoscaler."""

CLAIMS = "claims"
"""Name of the table of `ClaimPlace`. Field: uid of the PersistentVolumeClaim. Writers: the leading autoscaler, and a
node that has the content of a claim without an entry."""

Goal = Literal["serving", "paused", "stopped", "removed"]


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance that a node runs; the node takes everything else from the Revision."""

    instance: str
    node: str
    revision: str
    """`namespace/name`."""
    uid: str
    """uid of the Revision."""
    requested: float
    """Epoch seconds of the decision to start or wake it."""
    goal: Goal = "serving"
    """What it is to become; requests in it end first. `removed`: it ends."""
    generation: int = 1
    """Raised by one with each change of `goal`."""
    drained: int = 0
    """`Member.drain` of the last wait for its requests that has ended; 0 before the first."""
    empty: bool = False
    """Whether no request was left in it when that wait ended."""


class RecentRevision(msgspec.Struct, frozen=True, array_like=True):
    """A Revision without an instance, which gets one with the next request."""

    uid: str
    last_used: float
    """When its last instance went out of service, epoch seconds."""


class Preparation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node prepares for cold starts."""

    warm: int = 0
    """Revisions without an instance that may be woken there."""
    candidates: tuple[RecentRevision, ...] = ()
    """Revisions of which it may arm an instance."""


class ClaimPlace(msgspec.Struct, frozen=True):
    """Where the content of a PersistentVolumeClaim is: what mounts it runs there."""

    node: str
