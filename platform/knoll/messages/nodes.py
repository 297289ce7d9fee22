"""The table of nodes: the machines of a platform, and where the others reach them. Pure.

Each machine's autoscaler process writes the entry of its own machine. A platform on a single machine has no entry.
"""

import msgspec

NODES = "nodes"
"""Name of the table of `Node`. Field: name of the node. Writer of an entry: the autoscaler process of that machine."""


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
