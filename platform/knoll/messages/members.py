"""Messages from nodes to the leading autoscaler about their instances. Pure.

Each node writes the entries of its own instances. An instance that has ended stays as `REMOVED` until its assignment
is gone.
"""

from typing import Literal

import msgspec

from knoll.messages.endpoints import Endpoint
from knoll.messages.instances import InstanceRow
from knoll.messages.scale import StartFailure

MEMBERS = "members"
"""Name of the table of `Member`. Field: name of the instance. Writer of an entry: the node that runs the instance."""

State = Literal[
    "ARMED",
    "STARTING",
    "READY",
    "UNREADY",
    "GOING_IDLE",
    "PAUSED",
    "STOPPING",
    "STOPPED",
    "DRAINING",
    "LOST",
    "REMOVED",
]
"""Names of the autoscaler's life cycle states, and `ARMED`, which does not count as an instance."""


class MemberUsage(msgspec.Struct, frozen=True, array_like=True):
    """CPU time and memory that an instance uses."""

    cpu_seconds: float
    memory_bytes: int


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance on a node."""

    node: str
    revision: str
    """`namespace/name`."""
    uid: str
    """uid of the Revision."""
    state: State
    generation: int = 0
    """Generation of the newest assignment that the node has carried out."""
    row: InstanceRow | None = None
    """None while it is armed and after its end."""
    endpoint: Endpoint | None = None
    failure: StartFailure | None = None
    served: bool = False
    """Whether it was ready since it was last started or woken."""
    was_armed: bool = False
    drain: int = 0
    """Identifies the wait for its requests that the node has asked for; 0 while there is none."""
    grace_seconds: float = 0.0
    """How long that wait may take, in seconds."""
    usage: MemberUsage | None = None
    """Only for Revisions that scale by CPU or memory."""
