"""The nodes of a platform, as the leader uses them."""

from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.leader.claim_nodes import ClaimNodes
from autoscaler.leader.node_watch import NodeWatch
from autoscaler.link.protocol import NodeLink
from autoscaler.placement.protocol import Placer


@dataclass(frozen=True, slots=True)
class Nodes:
    """The leader's access to the nodes: the link, the placer, and which of them respond."""

    link: NodeLink
    placer: Placer
    memory_bytes: Callable[[], int]
    """Returns the memory of all nodes together, in bytes; 0 while it is unknown."""
    own: str = ""
    """Name of the node in this process."""
    responds: Callable[[str], bool] = lambda node: True
    """Returns whether a node responds."""
    watch: NodeWatch | None = None
    """None on a single machine."""
    claims: ClaimNodes | None = None
    """None on a single machine."""
