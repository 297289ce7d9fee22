"""Messages from the leading autoscaler to the nodes: assigned instances, and preparations for cold starts. Pure.

A platform on a single machine has none of these tables: leader and node are one process.
"""

from typing import Literal

import msgspec

ASSIGNMENTS = "assignments"
"""Name of the table of `Assignment`. Field: name of the instance. Writer: the leading autoscaler."""

PREPARATIONS = "preparations"
"""Name of the table of `Preparation`. Field: name of the node. Writer: the leading autoscaler."""

CLAIMS = "claims"
"""Name of the table of `ClaimPlace`. Field: uid of the PersistentVolumeClaim. Writers: the leading autoscaler, and a
node that has the data of a claim without an entry."""

Goal = Literal["serving", "paused", "stopped", "removed"]


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance that a node is to run; the node reads everything else from the Revision."""

    instance: str
    node: str
    revision: str
    """`namespace/name`."""
    uid: str
    """uid of the Revision."""
    requested: float
    """Epoch seconds of the decision to start or wake it."""
    goal: Goal = "serving"
    """The state that the node is to bring it to; requests in flight end first."""
    generation: int = 1
    """Raised by one with each change of `goal`."""
    drained: int = 0
    """`Member.drain` of the last wait for its requests that has ended; 0 if there was none."""
    empty: bool = False
    """Whether no request was left in it when that wait ended."""


class RecentRevision(msgspec.Struct, frozen=True, array_like=True):
    """A Revision without an instance, which gets one with the next request."""

    uid: str
    last_used: float
    """When its last instance went out of service, epoch seconds."""


class Preparation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Preparations of a node for cold starts."""

    warm: int = 0
    """How many Revisions without an instance may get one there."""
    candidates: tuple[RecentRevision, ...] = ()
    """Revisions of which it may arm an instance."""


class ClaimPlace(msgspec.Struct, frozen=True):
    """The node with the data of a PersistentVolumeClaim: instances that mount the claim run there."""

    node: str
