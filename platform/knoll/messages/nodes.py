"""The table of nodes: the machines of a platform, and where the others reach them. Pure.

Each machine's autoscaler process writes the entry of its own machine. A platform on a single machine has no entry.
"""

import msgspec

NODES = "nodes"
"""Name of the table of `Node`. Field: name of the node. Writer of an entry: the autoscaler process of that machine."""

DEAD_SECONDS = 3.0
"""A node whose last heartbeat is older than this counts as not responding."""


REMOVED_NODES = "removed-nodes"
"""Name of the table of `RemovedNode`. Field: name of the node. Writer: the API's controllers."""


class RemovedNode(msgspec.Struct, frozen=True):
    """A machine whose Node was deleted while its process ran: it has no Node until that process starts again."""

    started: float
    """`Node.started` of that process."""


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One machine. Names of fields follow Kubernetes' Node."""

    name: str
    address: str
    """IP address at which the other machines reach it."""
    relay_port: int
    """Port of its activator's relay, which takes requests for its instances; mutual TLS."""
    admin_port: int
    """Port of its autoscaler process for other machines (logs of instances); mutual TLS."""
    cores: float
    """CPU capacity for instances."""
    memory_bytes: int
    """Memory capacity for instances."""
    version: str
    """Version of the platform that runs there."""
    engine_id: str = ""
    """Its id in the engine's cluster (Docker Swarm); empty without one."""
    labels: dict[str, str] = {}
    unschedulable: bool = False
    """It gets no new instances."""
    started: float = 0.0
    """Epoch seconds since which its process runs."""
    process: str = ""
    """Host name of that process: that of its container. Empty once it was stopped."""


def follower_name(node: str, process: str) -> str:
    """Return the name of an activator among the followers of a table. Args: node: empty on a single machine."""
    return f"{node}/{process}" if node else process


def node_of_follower(name: str) -> str:
    """Return the node of an activator; empty on a single machine, and for activators of earlier versions."""
    return name.rpartition("/")[0]
