"""Placement on a single machine: an instance gets the only node once the machine has room for it."""

import asyncio

from autoscaler.decision.capacity import Reservations, ResourceRequest
from autoscaler.placement.protocol import ANYWHERE, Constraints, OnBound, OnProblem

POLL_SECONDS = 0.2
"""Interval at which waiting instances are tried again."""


class SinglePlacer:
    """See `Placer`. Uses the reservations of the machine, which the node's instances also change and release."""

    def __init__(self, reservations: Reservations, node: str) -> None:
        """
        Args:
            reservations: the node's reservations.
            node: name of the node; empty on a single machine.
        """
        self._reservations, self._node = reservations, node
        self._waiting: dict[str, ResourceRequest] = {}
        self._problems: dict[str, str] = {}
        self._wake = asyncio.Event()

    def begin(self, on_bound: OnBound, on_problem: OnProblem) -> None:
        self._on_bound, self._on_problem = on_bound, on_problem

    def restore(self, instance: str, node: str, request: ResourceRequest) -> None:
        self._reservations.put(instance, request)

    def place(self, instance: str, request: ResourceRequest, constraints: Constraints = ANYWHERE) -> None:
        self._try(instance, request)

    def withdraw(self, instance: str) -> None:
        self._waiting.pop(instance, None)
        self._problems.pop(instance, None)
        self._reservations.release(instance)

    def problem(self, instance: str) -> str:
        return self._problems.get(instance, "")

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            while self._waiting:
                await asyncio.sleep(POLL_SECONDS)
                for instance, request in list(self._waiting.items()):
                    if instance in self._waiting:
                        self._try(instance, request)
            self._wake.clear()

    def _try(self, instance: str, request: ResourceRequest) -> None:
        shortage = self._reservations.reserve(instance, request)
        before = self._problems.pop(instance, "")
        if shortage:
            self._waiting[instance], self._problems[instance] = request, shortage
            self._wake.set()
            if shortage != before:
                self._on_problem(instance, shortage)
            return
        self._waiting.pop(instance, None)
        if before:
            self._on_problem(instance, "")
        self._on_bound(instance, self._node)
