"""Leading: scales every Revision. Reads the store and the activators' reports, assigns instances, publishes."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.decision.capacity import Machine
from autoscaler.decision.idle_policy import step_down
from autoscaler.instances.draining import DRAIN_QUIET_SECONDS, Draining
from autoscaler.io.endpoint_publisher import EndpointPublisher
from autoscaler.io.instance_publisher import InstancePublisher
from autoscaler.io.report_subscriber import ReportSubscriber
from autoscaler.leader.node_follower import NodeFollower
from autoscaler.leader.nodes import Nodes
from autoscaler.leader.placing import Placing
from autoscaler.leader.registry import RevisionRegistry
from autoscaler.leader.revision_watch import CONFIGURATION, RevisionWatch
from autoscaler.leader.scaling_queue import ScalingQueue
from autoscaler.link.protocol import InstanceReport
from autoscaler.revisions.revision_scaler import RevisionScaler, ScalerDeps
from autoscaler.revisions.usage import SYNC_SECONDS, UsageMeter
from autoscaler.spec.followed_objects import FollowedObjects
from knoll.concurrency.backoff import until_available
from knoll.messages.assignments import Assignment
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.instances import INSTANCES, RevisionInstances
from knoll.messages.reports import Poke, Report
from knoll.messages.scale import SCALE, ScaleStatus
from knoll.redis.client import RedisClient
from knoll.resources.disruption import is_evicted
from knoll.store.informer import Informer, Informers, ObjectChange
from knoll.store.protocol import Store
from knoll.tables.protocol import Table
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

PUBLISHED_TOGETHER = 32
"""Revisions whose scale is published concurrently."""

SKEW_SECONDS = 2.0
"""Largest difference between an activator's timestamp and the arrival of its report that is accepted."""
REPUBLISH_SECONDS = 30.0
"""Interval at which the tables are compared with what was published: Redis may have lost them."""


@dataclass(frozen=True, slots=True)
class PublishedTables:
    """What the leader publishes."""

    endpoints: Table[RevisionEndpoints]
    scale: Table[ScaleStatus]
    instances: Table[RevisionInstances]

    @classmethod
    def of(cls, redis: RedisClient) -> "PublishedTables":
        """Return the tables of a platform."""
        return cls(
            RedisTable(redis, ENDPOINTS, RevisionEndpoints),
            RedisTable(redis, SCALE, ScaleStatus),
            RedisTable(redis, INSTANCES, RevisionInstances),
        )


@dataclass(frozen=True, slots=True)
class LeaderOptions:
    """Settings of the leader."""

    machine: Machine = field(default_factory=Machine)
    tick_seconds: float = 2.0
    """Interval of decisions."""
    measure_seconds: float = SYNC_SECONDS
    """Interval at which the usage of instances is measured."""
    quiet_seconds: float = DRAIN_QUIET_SECONDS
    """See `Draining`."""
    clock: Callable[[], float] = time.time


class Leader:
    """All Revisions of one platform, while this process leads.

    It has more attributes than the style allows: it is the place where the parts of the leader are created and
    connected. It decides nothing itself.
    """

    def __init__(
        self,
        nodes: Nodes,
        followed: FollowedObjects,
        store: Store,
        redis: RedisClient,
        tables: PublishedTables,
        options: LeaderOptions,
    ) -> None:
        self._nodes, self._followed, self._store = nodes, followed, store
        self._tables, self._options = tables, options
        self._clock = options.clock
        self._tasks: asyncio.TaskGroup | None = None
        self._unfollow: list[Callable[[], None]] = []
        self.registry, self._queue = RevisionRegistry(), ScalingQueue()
        self._quotas, self._pods = Informer(store, kinds.RESOURCE_QUOTA.id), Informer(store, kinds.POD.id)

        # What is published
        self._publisher = EndpointPublisher(tables.endpoints, tables.scale, self.registry.under, self.registry.current)
        self._instance_publisher = InstancePublisher(tables.instances, self.registry.under)
        self._draining = Draining(
            tables.endpoints, self._publisher.publish_when_available, self._clock, options.quiet_seconds
        )

        # What changes scale
        self._placing = Placing(
            nodes.link, nodes.placer, self.registry, self._quotas.list, self.instance_changed, self.capacity_short
        )
        self._placing.claims = nodes.claims
        self._node_follower = NodeFollower(nodes, store, self._placing, self.instance_changed)
        self._revisions = RevisionWatch(
            store,
            followed.config,
            followed.catalog,
            self.registry,
            self._queue,
            ScalerDeps(self._clock, self._placing.start, lambda uid: len(nodes.link.armed(uid))),
            self._spawn,
        )
        self._reports = ReportSubscriber(
            redis, on_poke=self._poked, on_report=self._reported, on_listening=self._listening_changed
        )
        self._meter = UsageMeter(
            nodes.link.usage, self.registry.by_uid.values, self._queue.mark, options.measure_seconds
        )

    async def run(self) -> None:
        """Lead until cancelled; instances keep running."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                informers = Informers(self._store, [self._pods, self._quotas, *self._node_follower.informers()])
                tasks.create_task(informers.run())
                tasks.create_task(self._nodes.link.run())
                await informers.synced()
                await self._nodes.link.synced()
                await self._node_follower.begin(tasks)
                await self._take_over()
                for loop in (
                    self._work,
                    self._tick,
                    self._placing.run,
                    self._nodes.placer.run,
                    self._reports.run,
                    self._republish,
                    self._instance_publisher.run,
                    self._meter.run,
                ):
                    tasks.create_task(loop())
                self._pods.subscribe(self._pod_changed)
        finally:
            self._nodes.link.disconnect()
            for end in self._unfollow:
                end()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work)

    async def _take_over(self) -> None:
        _, scale = await until_available(self._tables.scale.snapshot)
        _, endpoints = await until_available(self._tables.endpoints.snapshot)
        self._unfollow.append(self._revisions.begin({status.uid: status for _, status in scale.values()}))
        self._unfollow.append(self._followed.config.subscribe(lambda _: self._revisions.configuration_changed()))
        link = self._nodes.link
        link.connect(self)
        assignments = {each.instance: each for each in link.assignments()}
        for report in link.reports():
            self._adopt(report, assignments.pop(report.name, None))
        for assignment in assignments.values():
            self._adopt_assignment(assignment)
        for node in self._placing.absent:
            self._node_follower.node_absent(node)
        for scaler in self.registry.by_uid.values():
            scaler.adopted()
        for key in {*scale, *endpoints} - set(self.registry.current):
            await until_available(partial(self._publisher.remove, key))

    def _adopt_assignment(self, assignment: Assignment) -> None:
        """Take over an assigned instance that its node has not reported yet, unless the node does not respond."""
        scaler = self.registry.by_uid.get(assignment.uid)
        responds = assignment.node != self._nodes.own and self._nodes.responds(assignment.node)
        if scaler is None or assignment.goal == "removed" or not responds:
            self._nodes.link.withdraw(assignment.instance)
        else:
            scaler.adopt(self._placing.adopt(None, scaler, assignment))

    # Reports of nodes; see `LeaderEnd`

    def arming_candidates(self) -> Iterator[ArmingCandidate]:
        """See `LeaderEnd`."""
        return self.registry.index.candidates()

    def arming_nodes(self, uid: str, nodes: frozenset[str]) -> frozenset[str]:
        """See `LeaderEnd`."""
        return self._placing.admissible(self.registry.by_uid[uid], nodes)

    def instance_changed(self, revision: str) -> None:
        """See `LeaderEnd`."""
        self._queue.mark(revision, decide_first=False)

    def instance_removed(self, name: str) -> None:
        """See `LeaderEnd`."""
        self._placing.removed(name)

    def instance_reported(self, report: InstanceReport) -> None:
        """See `LeaderEnd`."""
        handle = self._placing.handles.get(report.name)
        if handle is not None:
            handle.reported(report)
            self._queue.mark(report.revision, decide_first=False)
        elif report.node == self._nodes.own:
            # Its Revision could not be scaled before.
            self._adopt(report, None)
        else:
            # Its node was lost for a while, and another instance has replaced it.
            self._dismiss(report)

    def _adopt(self, report: InstanceReport, assignment: Assignment | None) -> None:
        scaler = self.registry.by_uid.get(report.uid)
        if scaler is None:
            self._dismiss(report)
            return
        log.info("instance taken over", instance=report.name, revision=report.revision, node=report.node)
        scaler.adopt(self._placing.adopt(report, scaler, assignment))
        self._queue.mark(scaler.key)

    def _dismiss(self, report: InstanceReport) -> None:
        """Have its node remove an instance that no Revision needs."""
        log.info("surplus instance removed", instance=report.name, revision=report.revision, node=report.node)
        generation = report.generation + 1
        self._nodes.link.assign(
            Assignment(report.name, report.node, report.revision, report.uid, report.created, "removed", generation)
        )

    def sources_changed(self, uid: str) -> None:
        """See `LeaderEnd`."""
        self._revisions.sources_changed(uid)

    async def wait_until_drained(self, name: str, revision: str, grace_seconds: float) -> bool:
        """See `LeaderEnd`."""
        return await self._draining.wait_until_drained(name, revision, grace_seconds)

    @property
    def node_follower(self) -> NodeFollower:
        """Tracks which nodes are lost, and which are cordoned."""
        return self._node_follower

    # Changes in the store

    def _pod_changed(self, notice: ObjectChange) -> None:
        """Deleting a Pod removes its instance; the Revision gets another one if it needs it.

        A replacement is started first if the Pod is evicted, or deleted on a cordoned node.
        """
        if notice.new is None:
            return
        evicted = is_evicted(notice.new)
        if not evicted and "deletionTimestamp" not in notice.new["metadata"]:
            return
        instance = self._placing.handles.get(notice.new["metadata"]["name"])
        if not instance or not instance.revision.startswith(f"{notice.new['metadata']['namespace']}/"):
            return
        scaler = self.registry.by_uid.get(instance.assignment.uid)
        if (evicted or instance.node in self._node_follower.cordoned) and not (scaler and scaler.claims):
            instance.leave()
            self._queue.mark(instance.revision, decide_first=False)
        else:
            instance.drain()

    # Scaling

    async def _work(self) -> None:
        while True:
            due = await self._queue.take()
            for key, decide_first in due.items():
                for scaler in self.registry.under(key):
                    try:
                        scaler.act(decide_first=decide_first)
                    except Exception:
                        # A bug that one Revision triggers must not stop the others.
                        log.exception("revision not scaled", revision=key)
                    if self.registry.index.note(scaler):
                        self._nodes.link.candidates_changed()
            keys = list(due)
            await asyncio.sleep(0)  # instances begin to start before anything is published
            if len(keys) == 1:
                await self._publish(keys[0])
                continue
            for start in range(0, len(keys), PUBLISHED_TOGETHER):
                # After a start all Revisions are due: one connection for each of them would be too many.
                await asyncio.gather(*(self._publish(key) for key in keys[start : start + PUBLISHED_TOGETHER]))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._options.tick_seconds)
            exists = self._followed.sources[kinds.CONFIG_MAP.id].get(*CONFIGURATION) is not None
            self._revisions.note_configuration(exists=exists)
            unsettled = self.registry.index.unsettled()
            for scaler in unsettled:
                before = scaler.spec.rollout_from
                namespace = scaler.key.partition("/")[0]
                if before and scaler.compare(self.registry.current.get(f"{namespace}/{before}")):
                    self._queue.mark(scaler.key)
                if not scaler.quiet:
                    self._queue.mark(scaler.key)
            without_instance = self.registry.index.without_instance
            self._nodes.link.set_warm_demand(max(0, without_instance - self._nodes.link.armed_total()))
            self._step_down(unsettled)

    def _step_down(self, scalers: Iterable[RevisionScaler]) -> None:
        """Apply the idle policy: instances that were idle for long enough, or that keep too much memory, step down."""
        idle = {instance.name: (scaler, instance) for scaler in scalers for instance in scaler.idle_instances()}
        bound = int(self._nodes.memory_bytes() * self._options.machine.paused_memory_fraction)
        for step in step_down([instance for _, instance in idle.values()], bound, self._clock()):
            idle[step.name][0].step_down(step)

    def capacity_short(self) -> None:
        """An instance waits for capacity: the instance that has been paused the longest steps down."""
        paused = [
            (instance.since, instance.name, scaler)
            for scaler in self.registry.by_uid.values()
            for instance in scaler.idle_instances()
            if instance.state == "paused" and scaler.instances[instance.name].request.memory_bytes
        ]
        if paused:
            _, name, scaler = min(paused, key=lambda candidate: candidate[:2])
            if scaler.spec.stopped_seconds:
                scaler.instances[name].step_down()
            else:
                scaler.instances[name].drain()

    # Publishing

    async def _publish(self, key: str) -> None:
        for scaler in list(self.registry.under(key)):
            if scaler.deleted and not scaler.instances:
                self.registry.remove(scaler)
        try:
            if self.registry.under(key):
                await self._publisher.publish(key)
            else:
                await self._publisher.remove(key)
            self._instance_publisher.mark(key)
        except StoreUnavailableError as error:
            log.warning("revision not published yet", revision=key, error=str(error))
            self._publisher.invalidate(key)
            asyncio.get_running_loop().call_later(1.0, self._queue.mark, key)

    async def _republish(self) -> None:
        while True:
            await asyncio.sleep(REPUBLISH_SECONDS)
            self._instance_publisher.mark_all()
            try:
                outdated = await self._publisher.check()
            except StoreUnavailableError as error:
                log.warning("tables not checked", error=str(error))
                continue
            for key in outdated:
                self._publisher.invalidate(key)
                await self._publish(key)

    # Reports of activators

    def _listening_changed(self, complete: bool) -> None:
        self._draining.listening_since = self._clock() if complete else float("inf")

    def _poked(self, poke: Poke) -> None:
        scaler = self.registry.current.get(poke.revision)
        if scaler:
            scaler.poke(poke.activator, poke.waiting, self._clock(), poke.node)
            self._queue.mark(scaler.key)

    def _reported(self, report: Report) -> None:
        now = self._clock()
        # For an activator whose clock differs from ours, the period ends when its report arrives.
        counted = min(report.at, now) if abs(now - report.at) <= SKEW_SECONDS else now
        for row in report.revisions:
            scaler = self.registry.current.get(row.revision)
            if scaler:
                scaler.report(report.activator, row, now, report.period, counted)
                self.registry.index.unsettle(scaler)
        self._draining.record(report, now)
