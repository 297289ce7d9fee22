"""The node's end of the tables in Redis: carries out assignments, and reports the state of its instances.

Instances keep running while Redis is unavailable or no process leads.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import structlog

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.instances.instance import ManagedInstance
from autoscaler.kubelet.adoption import LastPublished
from autoscaler.kubelet.kubelet import Kubelet
from autoscaler.link.outbox import Outbox
from autoscaler.link.tables import LinkTables
from knoll.concurrency.backoff import until_available
from knoll.concurrency.pending_keys import PendingKeys
from knoll.messages.assignments import Assignment, ClaimPlace, Preparation
from knoll.messages.members import Member, MemberUsage, State
from knoll.resources.scaling import scaling_spec
from knoll.tables.follower import apply
from knoll.tables.protocol import FieldChange, Reset
from knoll.values.errors import KnollError

log = structlog.get_logger()

USAGE_SECONDS = 15.0
"""Interval at which usage is measured, for instances of Revisions that scale by CPU or memory."""
RETRY_SECONDS = 1.0
"""Interval at which assignments are retried whose Revision this process has not read yet."""
ENDED_SECONDS = 30.0
"""How long the end of an instance without an assignment is reported."""


class NodeTables:
    """The exchange of this node with a leader in another process."""

    def __init__(self, kubelet: Kubelet, tables: LinkTables, clock: Callable[[], float]) -> None:
        """Args: clock: epoch seconds."""
        self._kubelet, self._tables, self._clock = kubelet, tables, clock
        self._members = Outbox(tables.members)
        self._assigned: dict[str, Assignment] = {}
        """By instance; includes the assignments of other nodes."""
        self._ended: dict[str, float] = {}
        """Instance that has ended here to the epoch seconds of its end; kept until its assignment is removed."""
        self._unknown: set[str] = set()
        """Assigned instances whose Revision this process has not read yet."""
        self._usage: dict[str, MemberUsage] = {}
        self._preparation, self._prepared = Preparation(), True
        """The newest entry for this node, and whether it was carried out."""
        self._due = PendingKeys[str]()
        """Revisions, `namespace/name`, whose instances have changed."""
        self.compared = asyncio.Event()
        """Set once the instances were compared with their assignments; this process starts to lead only afterwards."""
        kubelet.listen(self._due.mark)

    async def last_published(self) -> LastPublished:
        """Read what this node reported before it restarted; waits while Redis is unavailable."""
        _, members = await until_available(self._tables.members.snapshot, "members not read yet")
        own = {name: member for name, (_, member) in members.items() if member.node == self._kubelet.name}
        self._members.values = dict(own)
        return LastPublished(
            {name: member.endpoint for name, member in own.items() if member.endpoint},
            {name: member.row for name, member in own.items() if member.row},
        )

    async def run(self) -> None:
        """Exchange messages until cancelled; the kubelet has adopted its instances."""
        await self._compare()
        async with asyncio.TaskGroup() as tasks:
            for loop in (
                self._follow_assignments, self._follow_preparations, self._members.run, self._report, self._retry,
                self._measure,
            ):  # fmt: skip
                tasks.create_task(loop())

    # Assignments

    async def _compare(self) -> None:
        """Compare the instances with the assignments at the start of this process: no instance is started twice."""
        version, assignments = await until_available(self._tables.assignments.snapshot, "assignments not read yet")
        self._assigned = {name: assignment for name, (_, assignment) in assignments.items()}
        for name, assignment in self._assigned.items():
            if assignment.node == self._kubelet.name:
                self._pursue_or_report_lost(name, assignment)
        # At version 0 the platform had no other node yet, or Redis has lost its data: the leader decides.
        for name, instance in list(self._kubelet.instances.items()) if version else ():
            if name not in self._assigned:
                log.info("instance removed", instance=name, reason="it is not assigned to this node any more")
                instance.drain()
        for name in [name for name in self._members.values if name not in self._kubelet.instances]:
            if name not in self._ended:
                self._members.remove(name)
        self._mark_all()
        await until_available(self._enter_claims, "claims not entered yet")
        self.compared.set()

    async def _enter_claims(self) -> None:
        """Record this node as the place of its volumes of claims without one: it may have been the only machine."""
        _, entered = await self._tables.claims.snapshot()
        for volume in await self._kubelet.runtime.volumes():
            if volume.kind == "claim" and volume.owner not in entered:
                await self._tables.claims.put(volume.owner, ClaimPlace(self._kubelet.name))

    def _pursue_or_report_lost(self, name: str, assignment: Assignment) -> None:
        instance = self._kubelet.instances.get(name)
        if instance is None and self._kubelet.armed.knows(name):
            self._pursue(assignment)  # it was not released yet
            return
        if instance is None:
            log.warning("instance lost", instance=name, revision=assignment.revision)
            self._end(name, assignment.revision, assignment.uid)
            return
        before = self._members.values.get(name)
        instance.generation = max(instance.generation, before.generation if before else 0)
        self._kubelet.assign(assignment)

    async def _follow_assignments(self) -> None:
        async for change in self._tables.assignments.follow():
            before = dict(self._assigned) if isinstance(change, Reset) else _entry(self._assigned, change)
            for name in apply(change, self._assigned):
                self._assignment_changed(name, before.get(name), removed_for_certain=not isinstance(change, Reset))

    def _assignment_changed(self, name: str, before: Assignment | None, *, removed_for_certain: bool) -> None:
        own, assignment = self._kubelet.name, self._assigned.get(name)
        if assignment is None:
            self._unknown.discard(name)
            if name in self._ended:
                del self._ended[name]
                self._members.remove(name)
            instance = self._kubelet.instances.get(name)
            # After a gap the table may have been lost: the leader then decides, from the reports of this node.
            if instance is not None and before is not None and before.node == own and removed_for_certain:
                log.info("instance removed", instance=name, reason="it is not assigned to this node any more")
                instance.drain()
        elif assignment.node == own and name not in self._ended:
            self._pursue(assignment)

    def _pursue(self, assignment: Assignment) -> None:
        name = assignment.instance
        started = self._kubelet.assign(assignment) is not None
        if assignment.goal == "removed" and not started:
            self._end(name, assignment.revision, assignment.uid)
        elif started:
            self._unknown.discard(name)
        else:
            self._unknown.add(name)

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            for name in list(self._unknown):
                if name in self._assigned:
                    self._pursue(self._assigned[name])
            self._prepare(self._preparation)
            now = self._clock()
            for name in [name for name, at in self._ended.items() if now - at > ENDED_SECONDS]:
                if name not in self._assigned:
                    del self._ended[name]
                    self._members.remove(name)

    # Reports

    def _mark_all(self) -> None:
        self._due.mark(*{instance.revision for instance in self._kubelet.instances.values()})
        self._report_armed()

    async def _report(self) -> None:
        self._kubelet.armed.listen(self._report_armed)
        while True:
            revisions = set(await self._due.batch())
            for instance in self._kubelet.instances.values():
                if instance.revision in revisions:
                    self._members.put(instance.name, self._member(instance))
            gone = [
                (name, member)
                for name, member in self._members.values.items()
                if member.revision in revisions and member.state not in ("ARMED", "REMOVED")
                and name not in self._kubelet.instances
            ]  # fmt: skip
            for name, member in gone:
                self._end(name, member.revision, member.uid)

    def _end(self, name: str, revision: str, uid: str) -> None:
        """Report that nothing of an instance is left here."""
        self._kubelet.disarm(name)
        self._ended[name] = self._clock()
        self._usage.pop(name, None)
        self._members.put(name, Member(self._kubelet.name, revision, uid, "REMOVED"))

    def _report_armed(self) -> None:
        armed = {each.spec.name: each.spec for each in self._kubelet.armed.armed()}
        for name, spec in armed.items():
            self._members.put(name, Member(self._kubelet.name, spec.revision, spec.uid, "ARMED"))
        reported = [name for name, member in self._members.values.items() if member.state == "ARMED"]
        for name in reported:
            if name not in armed and name not in self._kubelet.instances:
                self._members.remove(name)

    def _member(self, instance: ManagedInstance) -> Member:
        drain = self._kubelet.drains.get(instance.name)
        return Member(
            node=self._kubelet.name,
            revision=instance.revision,
            uid=instance.uid,
            state=cast("State", instance.state.name),
            generation=instance.generation,
            row=instance.row(),
            endpoint=instance.endpoint(),
            failure=instance.failure,
            served=instance.was_in_service,
            was_armed=instance.was_armed,
            drain=drain.number if drain else 0,
            grace_seconds=drain.grace_seconds if drain else 0.0,
            usage=self._usage.get(instance.name),
        )

    # Cold starts, usage

    async def _follow_preparations(self) -> None:
        async for change in self._tables.preparations.follow():
            entry = change.entries.get(self._kubelet.name) if isinstance(change, Reset) else change.value
            if isinstance(change, FieldChange) and change.field != self._kubelet.name:
                continue
            if entry is not None:
                self._preparation, self._prepared = entry, False
                self._prepare(entry)

    def _prepare(self, entry: Preparation) -> None:
        if self._kubelet.leads:
            self._prepared = False  # the leader in this process has prepared it; the entry counts afterwards
            return
        if self._prepared:
            return
        self._prepared = True
        candidates = [ArmingCandidate(each.uid, each.last_used) for each in entry.candidates]
        self._kubelet.armed.follow(lambda: candidates)
        self._kubelet.runtime.set_warm_demand(entry.warm)

    async def _measure(self) -> None:
        config = self._kubelet.followed.config
        while True:
            await asyncio.sleep(USAGE_SECONDS)
            by_resources: dict[str, bool] = {}
            for instance in list(self._kubelet.instances.values()):
                if instance.uid not in by_resources:
                    compressed = self._kubelet.catalog.get(instance.uid)
                    by_resources[instance.uid] = (
                        compressed is not None and scaling_spec(compressed.revision(), config.current).by_resources
                    )
                if by_resources[instance.uid]:
                    await self._measure_one(instance)

    async def _measure_one(self, instance: ManagedInstance) -> None:
        try:
            usage = await self._kubelet.runtime.usage(instance.name)
        except KnollError as error:
            log.warning("instance not measured", instance=instance.name, error=str(error))
            return
        if instance.name not in self._kubelet.instances:
            return  # it has ended meanwhile
        self._usage[instance.name] = MemberUsage(usage.cpu_seconds, usage.memory_bytes)
        self._due.mark(instance.revision)


def _entry(entries: dict[str, Assignment], change: FieldChange[Assignment]) -> dict[str, Assignment]:
    return {change.field: entries[change.field]} if change.field in entries else {}
