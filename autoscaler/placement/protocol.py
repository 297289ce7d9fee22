"""Finding a node for each instance, as one protocol.

Two forms pass the same tests: `single`, whose only node is this machine, and `swarm`, where Docker Swarm decides. A
binding is the counterpart of a Pod's `spec.nodeName`: once an instance has a node, it stays there until it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autoscaler.decision.capacity import ResourceRequest


@dataclass(frozen=True, slots=True)
class Constraints:
    """Where an instance may run."""

    node: str | None = None
    """The only node that may run it, because a volume of it is there; None is any node."""
    excluded: frozenset[str] = frozenset()
    """Nodes that get no new instance: cordoned ones, and those that do not respond."""
    unsuitable: frozenset[str] = frozenset()
    """Nodes whose labels do not match what the Revision requires."""
    preferred: str | None = None
    """A node that asked for it, as far as the choice is the placer's own; None is none."""


ANYWHERE = Constraints()

OnBound = Callable[[str, str], None]
"""Called with an instance and the node that it is bound to, once for each binding, in the event loop."""
OnProblem = Callable[[str, str], None]
"""Called with an instance and why it has no node, whenever that changes; an empty text ends a problem."""


class Placer(Protocol):
    """Places instances while this process leads.

    Calls return at once and never raise for what happens outside: the placer keeps trying, and reports a problem
    meanwhile. Names of instances are unique for all time.
    """

    def begin(self, on_bound: OnBound, on_problem: OnProblem) -> None:
        """Connect the leader; called once, before any other call. Both may be called before `place` returns."""
        ...

    def restore(self, instance: str, node: str, request: ResourceRequest) -> None:
        """Record an instance that runs on a node already, whether it fits there or not; it is not reported again."""
        ...

    def place(self, instance: str, request: ResourceRequest, constraints: Constraints = ANYWHERE) -> None:
        """Find a node for an instance; `on_bound` follows.

        An instance that has a node keeps it, and the call changes nothing. For one that waits, the newest constraints
        count.
        """
        ...

    def withdraw(self, instance: str) -> None:
        """Release the place of an instance, or stop looking for one; does nothing for one that is not known.

        `on_bound` is not called for it afterwards.
        """
        ...

    def problem(self, instance: str) -> str:
        """Return why an instance has no node yet, in the words of Kubernetes' scheduler.

        `0/3 nodes are available: 3 Insufficient cpu.`; empty when it has one, and while nothing is wrong.
        """
        ...

    async def run(self) -> None:
        """Keep placing until cancelled; called once, after `begin`."""
        ...
