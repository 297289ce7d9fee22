"""A placer over several nodes: the node with the fewest instances gets the next one."""

import asyncio
from collections.abc import Callable, Sequence

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.placement.protocol import ANYWHERE, Constraints, OnBound, OnProblem


class SpreadPlacer:
    """See `Placer`."""

    def __init__(self, nodes: Callable[[], Sequence[str]], per_node: int = 100) -> None:
        """
        Args:
            nodes: returns the nodes that respond.
            per_node: instances that fit on each.
        """
        self._nodes, self.per_node = nodes, per_node
        self.places: dict[str, str] = {}
        """Instance to node."""
        self._waiting: dict[str, Constraints] = {}
        self._problems: dict[str, str] = {}

    def begin(self, on_bound: OnBound, on_problem: OnProblem) -> None:
        self._on_bound, self._on_problem = on_bound, on_problem

    def restore(self, instance: str, node: str, request: ResourceRequest) -> None:
        self.places[instance] = node

    def place(self, instance: str, request: ResourceRequest, constraints: Constraints = ANYWHERE) -> None:
        if instance not in self.places:
            self._waiting[instance] = constraints
            self._try(instance)

    def withdraw(self, instance: str) -> None:
        for kept in (self.places, self._waiting, self._problems):
            kept.pop(instance, None)

    def problem(self, instance: str) -> str:
        return self._problems.get(instance, "")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for instance in list(self._waiting):
                if instance in self._waiting:
                    self._try(instance)

    def _try(self, instance: str) -> None:
        constraints, taken = self._waiting[instance], list(self.places.values())
        nodes = [
            node
            for node in self._nodes()
            if node not in constraints.excluded | constraints.unsuitable
            and constraints.node in (None, node)
            and taken.count(node) < self.per_node
        ]
        before = self._problems.pop(instance, "")
        if not nodes:
            count = len(self._nodes())
            self._problems[instance] = f"0/{count} nodes are available: {count} Insufficient cpu."
            if not before:
                self._on_problem(instance, self._problems[instance])
            return
        node = min(nodes, key=lambda each: (taken.count(each), each != constraints.preferred, each))
        del self._waiting[instance]
        self.places[instance] = node
        if before:
            self._on_problem(instance, "")
        self._on_bound(instance, node)
