"""What the leader has of the nodes of a platform."""

from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.leader.claim_nodes import ClaimNodes
from autoscaler.leader.node_watch import NodeWatch
from autoscaler.link.protocol import NodeLink
from autoscaler.placement.protocol import Placer


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a platform, as the leader uses them."""

    link: NodeLink
    placer: Placer
    memory_bytes: Callable[[], int]
    """Returns the memory of all nodes together; 0 while it is unknown."""
    own: str = ""
    """Name of the node in this process."""
    responds: Callable[[str], bool] = lambda node: True
    """Returns whether a node is alive."""
    watch: NodeWatch | None = None
    """None on a single machine."""
    claims: ClaimNodes | None = None
    """None on a single machine."""
