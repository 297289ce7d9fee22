"""The protocol of placers, which find a node for each instance.

Two implementations pass the same tests: `single`, whose only node is this machine, and `swarm`, where Docker Swarm
decides. A binding is the counterpart of a Pod's `spec.nodeName`: once an instance has a node, it stays there until it
ends.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from autoscaler.decision.capacity import ResourceRequest


@dataclass(frozen=True, slots=True)
class Constraints:
    """Where an instance may run."""

    node: str | None = None
    """The only node that may run it: a volume of it is there, or it is armed there; None for any node."""
    excluded: frozenset[str] = frozenset()
    """Nodes that get no new instance: cordoned ones, and those that do not respond."""
    unsuitable: frozenset[str] = frozenset()
    """Nodes whose labels do not match what the Revision requires."""
    preferred: str | None = None
    """A node that is chosen among equal free places; None for no preference."""
    instances: Mapping[str, int] = field(default_factory=dict)
    """How many instances of the Revision each node has, if any: nodes with fewer come first."""


ANYWHERE = Constraints()

OnBound = Callable[[str, str], None]
"""Called with an instance and the node that it is bound to, once for each binding, in the event loop."""
OnProblem = Callable[[str, str], None]
"""Called with an instance and the reason why it has no node, whenever that changes; empty when there is none."""


class Placer(Protocol):
    """Places instances while this process leads.

    Calls return at once and do not raise when the Swarm or the engine fails: the placer retries, and meanwhile reports
    the problem. Instance names are never used twice.
    """

    def begin(self, on_bound: OnBound, on_problem: OnProblem) -> None:
        """Set the callbacks; called once, before any other call. `place` may call both before it returns."""
        ...

    def restore(self, instance: str, node: str, request: ResourceRequest) -> None:
        """Record an instance that already runs on a node, whether it fits or not; `on_bound` is not called for it."""
        ...

    def place(self, instance: str, request: ResourceRequest, constraints: Constraints = ANYWHERE) -> None:
        """Find a node for an instance; `on_bound` follows.

        Does nothing for an instance that has a node. For one that waits, the newest constraints apply.
        """
        ...

    def withdraw(self, instance: str) -> None:
        """Release the place of an instance, or stop looking for one; does nothing for an unknown instance.

        `on_bound` is not called for it afterwards.
        """
        ...

    def problem(self, instance: str) -> str:
        """Return why an instance has no node yet, in the words of Kubernetes' scheduler.

        Example: `0/3 nodes are available: 3 Insufficient cpu.` Empty when it has a node, or there is no problem yet.
        """
        ...

    async def run(self) -> None:
        """Keep placing until cancelled; called once, after `begin`."""
        ...
