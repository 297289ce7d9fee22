"""A Swarm as plain values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SwarmNode:
    """A machine of the Swarm."""

    id: str
    hostname: str
    role: str
    """`manager` or `worker`."""
    availability: str
    """`active`, `pause` (no new tasks) or `drain` (no tasks)."""
    state: str
    """`ready`, `down`, `disconnected` or `unknown`."""
    cores: float = 0.0
    memory_bytes: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    leader: bool = False
    """The manager that leads the others."""

    @property
    def takes_tasks(self) -> bool:
        return self.state == "ready" and self.availability == "active"


@dataclass(frozen=True, slots=True)
class SwarmService:
    """A service."""

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    nano_cpus: int = 0
    """Reserved CPU, in billionths of a core; `memory_bytes` is reserved as well."""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SwarmTask:
    """A task of a service."""

    id: str
    service: str
    """Id of the service."""
    node: str
    """Id of its node; empty while it has none."""
    state: str
    """`new`, `pending`, `assigned`, `accepted`, `preparing`, `ready`, `starting`, `running`, or one that ended."""
    desired: str
    """`running`, or `shutdown` and `remove` once Swarm ends it."""
    error: str = ""
    """Why it has no node, or has failed."""

    @property
    def ended(self) -> bool:
        return self.desired in ("shutdown", "remove") or self.state in _ENDED


_ENDED = frozenset({"complete", "failed", "shutdown", "rejected", "orphaned", "remove"})


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes of the platform, and the machines of the Swarm."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Name of each node of the platform to its id in the Swarm."""
    machines: Mapping[str, SwarmNode] = field(default_factory=dict)
    """By id; some may not be nodes of the platform."""

    def name_of(self, machine: str) -> str:
        """Return the node with an id in the Swarm; empty if the platform has none there."""
        return next((name for name, each in self.names.items() if each == machine), "")

    def is_active(self, name: str) -> bool:
        """Return whether operators allow new tasks on a node, as far as it is known."""
        machine = self.machines.get(self.names.get(name, ""))
        return machine is None or machine.availability == "active"

    def takes_tasks(self, name: str) -> bool:
        """Return whether Swarm gives new tasks to a node."""
        machine = self.machines.get(self.names.get(name, ""))
        return machine is not None and machine.takes_tasks
