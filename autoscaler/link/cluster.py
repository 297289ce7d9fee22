"""The leader's link to all nodes: to the one in this process in memory, to the others through tables.

Assignments to the leader's own node are written to the table as well: another process may lead next, or this one may
restart.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.decision.arming_nodes import distribute
from autoscaler.link.memory import MemoryLink
from autoscaler.link.protocol import ArmedOffer, Blueprint, InstanceReport, LeaderEnd
from autoscaler.link.tables import TableLink
from autoscaler.runtime.model import Usage
from knoll.messages.assignments import Assignment

PREPARE_SECONDS = 0.5
"""Changes of the nodes' preparations within this time are written together."""
CANDIDATES_PER_NODE = 256
"""Revisions that may be armed, for each node: the largest number of armed instances of a machine."""


class ClusterLink:
    """See `NodeLink`."""

    def __init__(
        self, own: str, memory: MemoryLink, tables: TableLink, schedulable: Callable[[], Sequence[str]]
    ) -> None:
        """
        Args:
            own: name of the node in this process.
            schedulable: returns the nodes that may get instances, in any order.
        """
        self._own, self._memory, self._tables, self._schedulable = own, memory, tables, schedulable
        self._changed = asyncio.Event()
        self._leader: LeaderEnd | None = None
        self._arming: Mapping[str, str] = {}
        """uid of each Revision that may be armed to the node that does it."""

    async def synced(self) -> None:
        await self._tables.synced()

    def connect(self, leader: LeaderEnd) -> None:
        self._leader = leader
        self._tables.connect(leader)
        self._memory.connect(leader, self._own_candidates)

    def disconnect(self) -> None:
        self._leader = None
        self._memory.disconnect()
        self._tables.disconnect()

    def reports(self) -> Iterable[InstanceReport]:
        return (*self._memory.reports(), *self._tables.reports())

    def assignments(self) -> Iterable[Assignment]:
        return self._tables.assignments()

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None:
        if assignment.node != self._own:
            return self._tables.assign(assignment)
        report = self._memory.assign(assignment, blueprint)
        self._tables.assign(assignment)
        return report

    def withdraw(self, instance: str) -> None:
        self._memory.withdraw(instance)
        self._tables.withdraw(instance)

    def returned(self, node: str) -> None:
        self._tables.returned(node)

    def forget(self, node: str) -> None:
        self._tables.forget(node)

    def hold(self, armed: str) -> None:
        self._memory.hold(armed)

    def armed(self, uid: str) -> Sequence[ArmedOffer]:
        others = (offer for offer in self._tables.armed(uid) if offer.node != self._own)
        return [*self._memory.armed(uid), *others]

    def armed_total(self) -> int:
        return self._tables.armed_total()

    def candidates_changed(self) -> None:
        self._memory.candidates_changed()
        self._changed.set()

    def set_warm_demand(self, revisions: int) -> None:
        self._memory.set_warm_demand(revisions)
        self._tables.set_warm_demand(revisions)
        self._changed.set()

    async def usage(self, instances: Sequence[str]) -> Mapping[str, Usage]:
        others = await self._tables.usage(instances)
        own = {report.name for report in self._memory.reports()}
        return {**others, **await self._memory.usage([name for name in instances if name in own])}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tables.run())
            tasks.create_task(self._prepare())

    async def _prepare(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(PREPARE_SECONDS)
            self._changed.clear()
            if self._leader is None:
                continue
            shares = self._shares()
            for node, candidates in shares.items():
                self._tables.prepare(node, candidates)
            self._tables.prepare_only(shares)

    def _own_candidates(self) -> Iterable[ArmingCandidate]:
        return self._shares().get(self._own, ())

    def _shares(self) -> dict[str, list[ArmingCandidate]]:
        """Return the Revisions of which each node arms an instance, those used last first."""
        nodes = frozenset(self._schedulable())
        shares: dict[str, list[ArmingCandidate]] = {node: [] for node in nodes}
        if self._leader is None:
            return shares
        candidates = {candidate.uid: candidate for candidate in self._candidates(len(nodes))}
        allowed = {uid: self._leader.arming_nodes(uid, nodes) for uid in candidates}
        self._arming = distribute(allowed, nodes, self._arming or self._tables.prepared())
        for uid, candidate in candidates.items():
            share = shares.get(self._arming.get(uid, ""))
            if share is not None and len(share) < CANDIDATES_PER_NODE:
                share.append(candidate)
        return shares

    def _candidates(self, nodes: int) -> Iterator[ArmingCandidate]:
        """Return the Revisions that some node may arm. Args: nodes: how many nodes there are."""
        return islice(self._leader.arming_candidates() if self._leader else (), CANDIDATES_PER_NODE * nodes)
