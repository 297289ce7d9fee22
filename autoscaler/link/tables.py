"""The leader's end of the tables in Redis: writes assignments, follows what nodes report."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.link.outbox import Outbox
from autoscaler.link.protocol import ArmedOffer, Blueprint, InstanceReport, LeaderEnd
from autoscaler.link.reported import ReportedInstance
from autoscaler.runtime.model import Usage
from knoll.concurrency.backoff import until_available
from knoll.concurrency.pending_keys import PendingKeys
from knoll.messages.assignments import (
    ASSIGNMENTS,
    CLAIMS,
    PREPARATIONS,
    Assignment,
    ClaimPlace,
    Preparation,
    RecentRevision,
)
from knoll.messages.members import MEMBERS, Member
from knoll.redis.client import RedisClient
from knoll.tables.follower import follow_table
from knoll.tables.protocol import Table
from knoll.tables.redis_tables import RedisTable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LinkTables:
    """The tables between leader and nodes."""

    assignments: Table[Assignment]
    members: Table[Member]
    preparations: Table[Preparation]
    claims: Table[ClaimPlace]

    @classmethod
    def of(cls, redis: RedisClient) -> "LinkTables":
        """Return the tables of a platform."""
        return cls(
            RedisTable(redis, ASSIGNMENTS, Assignment, prompt=True),
            RedisTable(redis, MEMBERS, Member, prompt=True),
            RedisTable(redis, PREPARATIONS, Preparation),
            RedisTable(redis, CLAIMS, ClaimPlace),
        )


class TableLink:
    """See `NodeLink`. An assignment takes effect when its node reads it; writes are repeated until they succeed."""

    def __init__(self, tables: LinkTables, responds: Callable[[str], bool], own: str = "") -> None:
        """
        Args:
            responds: returns whether a node responds; instances of other nodes are not taken over.
            own: name of the node in this process, whose reports are not read from the table; empty for none.
        """
        self._responds, self._own = responds, own
        self._members: dict[str, Member] = {}
        """By instance: the reports of all nodes."""
        self._reports: dict[str, ReportedInstance] = {}
        """By instance, without those that are armed or gone."""
        self._armed: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """By uid of the Revision: name of each armed instance to its node."""
        self._drains: dict[str, tuple[int, asyncio.Task[None]]] = {}
        """By instance: number and task of the wait for its requests that its node has asked for."""
        self._leader: LeaderEnd | None = None
        self._tables = tables
        self._assignments, self._preparations = Outbox(tables.assignments), Outbox(tables.preparations)
        self._read = asyncio.Event()
        self._candidates_changed = asyncio.Event()
        self._warm = 0
        self._forgotten = PendingKeys[str]()
        """Instances of forgotten nodes, whose reports are to be removed."""

    def connect(self, leader: LeaderEnd) -> None:
        self._leader = leader
        for name, member in self._members.items():
            if member.state == "REMOVED":
                self._assignments.remove(name)
            self._consider_drain(name, member)

    def disconnect(self) -> None:
        self._leader = None
        for _, task in self._drains.values():
            task.cancel()
        self._drains.clear()

    async def synced(self) -> None:
        await self._read.wait()

    def reports(self) -> Iterable[InstanceReport]:
        return tuple(each for each in self._reports.values() if self._responds(each.node))

    def assignments(self) -> Iterable[Assignment]:
        return tuple(self._assignments.values.values())

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None:
        before = self._assignments.values.get(assignment.instance)
        if before is not None and before.drained > assignment.drained:
            assignment = msgspec.structs.replace(assignment, drained=before.drained, empty=before.empty)
        self._assignments.put(assignment.instance, assignment)
        return self._reports.get(assignment.instance)

    def withdraw(self, instance: str) -> None:
        self._reports.pop(instance, None)
        self._end_drain(instance)
        self._assignments.remove(instance)

    def hold(self, armed: str) -> None:
        """Does nothing: the node gets the assignment itself."""

    def armed(self, uid: str) -> Sequence[ArmedOffer]:
        waiting = self._armed.get(uid, {})
        return [ArmedOffer(name, node, None) for name, node in waiting.items() if self._responds(node)]

    def armed_total(self) -> int:
        return sum(len(each) for each in self._armed.values())

    def candidates_changed(self) -> None:
        self._candidates_changed.set()

    def set_warm_demand(self, revisions: int) -> None:
        self._warm = revisions
        self._candidates_changed.set()

    def prepare(self, node: str, candidates: Iterable[ArmingCandidate]) -> None:
        """Write what a node is to prepare."""
        recent = tuple(RecentRevision(each.uid, each.last_used) for each in candidates)
        self._preparations.put(node, Preparation(self._warm, recent))

    def prepared(self) -> dict[str, str]:
        """Return the node of each Revision that one was asked to arm, by uid."""
        entries = self._preparations.values.items()
        return {candidate.uid: node for node, entry in entries for candidate in entry.candidates}

    def prepare_only(self, nodes: Iterable[str]) -> None:
        """Have all other nodes prepare nothing: they get no new instances."""
        for node in self._preparations.values.keys() - set(nodes):
            self._preparations.put(node, Preparation())

    async def usage(self, instances: Sequence[str]) -> Mapping[str, Usage]:
        members = {name: self._members[name] for name in instances if name in self._members}
        return {
            name: Usage(member.usage.cpu_seconds, member.usage.memory_bytes)
            for name, member in members.items()
            if member.usage is not None
        }

    def returned(self, node: str) -> None:
        for name, member in list(self._members.items()):
            if member.node == node:
                self._reports.pop(name, None)
                self._changed(name)

    def forget(self, node: str) -> None:
        for name in [name for name, member in self._members.items() if member.node == node]:
            self._forgotten.mark(name)
        self._preparations.remove(node)

    async def run(self) -> None:
        await self._assignments.load()
        await self._preparations.load()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_table(self._tables.members, self._members, self._changed, self._read))
            tasks.create_task(self._assignments.run())
            tasks.create_task(self._preparations.run())
            tasks.create_task(self._remove_forgotten())

    async def _remove_forgotten(self) -> None:
        while True:
            name = await self._forgotten.next()
            await until_available(partial(self._tables.members.remove, name), "member not removed yet")

    # What nodes report

    def _changed(self, name: str) -> None:
        member = self._members.get(name)
        self._note_armed(name, member)
        if member is not None and member.node == self._own:
            return
        if member is None and name in self._assignments.values:
            return  # Redis has lost the report: a node removes it only after the assignment is gone
        report = self._reports.get(name)
        if member is None or member.state in ("ARMED", "REMOVED"):
            if report is None and member is not None and member.state == "REMOVED":
                self._ended(name, member.revision)
            elif report is not None:
                self._reports.pop(name)
                if member is not None:
                    report.member = member
                else:
                    report.member = msgspec.structs.replace(report.member, state="REMOVED", endpoint=None)
                self._ended(name, report.revision)
            return
        if report is None:
            self._reports[name] = report = ReportedInstance(name, member)
            if self._leader is not None and self._responds(member.node):
                self._leader.instance_reported(report)
        report.member = member
        self._consider_drain(name, member)
        if self._leader is not None:
            self._leader.instance_changed(member.revision)

    def _ended(self, name: str, revision: str) -> None:
        self._end_drain(name)
        if self._leader is not None:
            self._leader.instance_removed(name)
            self._leader.instance_changed(revision)

    def _note_armed(self, name: str, member: Member | None) -> None:
        if member is not None and member.state == "ARMED":
            self._armed[member.uid][name] = member.node
            return
        for uid, waiting in list(self._armed.items()):
            if waiting.pop(name, None) is not None and not waiting:
                del self._armed[uid]

    # Waits for the requests of instances

    def _consider_drain(self, name: str, member: Member) -> None:
        current = self._drains.get(name)
        if current is not None and current[0] != member.drain:
            self._end_drain(name)
            current = None
        assigned = self._assignments.values.get(name)
        answered = assigned.drained if assigned else 0
        ours = member.node != self._own and self._responds(member.node)
        if self._leader is None or current is not None or not ours or member.drain <= answered:
            return
        wait = self._wait(self._leader, name, member)
        self._drains[name] = member.drain, asyncio.ensure_future(wait)

    def _end_drain(self, name: str) -> None:
        if (current := self._drains.pop(name, None)) is not None:
            current[1].cancel()

    async def _wait(self, leader: LeaderEnd, name: str, member: Member) -> None:
        try:
            empty = await leader.wait_until_drained(name, member.revision, member.grace_seconds)
        except Exception:
            # The node waits for an answer: it continues as after the grace period.
            log.exception("requests not awaited", instance=name, revision=member.revision)
            empty = False
        self._drains.pop(name, None)
        assigned = self._assignments.values.get(name) or Assignment(
            name, member.node, member.revision, member.uid, 0.0, goal="removed", generation=member.generation
        )
        self._assignments.put(name, msgspec.structs.replace(assigned, drained=member.drain, empty=empty))
