"""Leading: scales every Revision. Reads the store and the activators' reports, acts on the engine, publishes."""

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from autoscaler.decision.capacity import Machine, Reservations
from autoscaler.decision.idle_policy import step_down
from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.draining import DRAIN_QUIET_SECONDS, Draining
from autoscaler.io.endpoint_publisher import EndpointPublisher
from autoscaler.io.engine_events import EngineEvents
from autoscaler.io.instance_publisher import InstancePublisher
from autoscaler.io.report_subscriber import ReportSubscriber
from autoscaler.leader.armed_pool import ArmedPool, Memory
from autoscaler.leader.disk_watch import INTERVAL_SECONDS, DiskWatch
from autoscaler.leader.registry import RevisionRegistry
from autoscaler.leader.revision_watch import CONFIGURATION, RevisionWatch
from autoscaler.leader.scaling_queue import ScalingQueue
from autoscaler.leader.takeover import Takeover
from autoscaler.node.image_puller import ImagePuller
from autoscaler.node.isolation import Firewall, Isolation
from autoscaler.probes.checks import Checker
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.revisions.usage import SYNC_SECONDS, UsageMeter
from autoscaler.runtime.model import EngineVolume
from autoscaler.runtime.protocol import Runtime
from autoscaler.spec.volume_sync import VolumeSync
from knoll.auth.token_key import shared_key
from knoll.concurrency.backoff import until_available
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.instances import INSTANCES, RevisionInstances
from knoll.messages.reports import Poke, Report
from knoll.messages.scale import SCALE, ScaleStatus
from knoll.process.memory import total_and_available
from knoll.redis.client import RedisClient
from knoll.redis.encryption import PLAIN, Keyring
from knoll.store.config_watcher import ConfigWatcher
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
REMOVED_COLLECTED = 100
"""Garbage is collected after this many removed instances, which leave 2 MB; that takes some ten milliseconds."""


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

    firewall: Firewall | None = None
    """None when the platform has no firewall."""
    machine: Machine = field(default_factory=Machine)
    keyring: Keyring = PLAIN
    tick_seconds: float = 2.0
    """Interval of decisions."""
    measure_seconds: float = SYNC_SECONDS
    """Interval at which the usage of instances is measured."""
    disk_seconds: float = INTERVAL_SECONDS
    """Interval at which the disk use of instances is measured."""
    quiet_seconds: float = DRAIN_QUIET_SECONDS
    """See `Draining`."""
    armed_instances: int = 0
    """How many instances may be armed."""
    memory: Memory = total_and_available
    clock: Callable[[], float] = time.time


class Leader:
    """All Revisions of one platform, while this process leads.

    It has more attributes than the style allows: it is the place where the services of the process are created and
    connected. It decides nothing itself.
    """

    def __init__(
        self,
        runtime: Runtime,
        checker: Checker,
        store: Store,
        redis: RedisClient,
        tables: PublishedTables,
        options: LeaderOptions,
    ) -> None:
        self._runtime, self._store, self._tables, self._options = runtime, store, tables, options
        self._clock = options.clock
        self._tasks: asyncio.TaskGroup | None = None
        self._removed = 0
        """Instances removed since the last garbage collection."""
        self.registry, self._queue = RevisionRegistry(), ScalingQueue()

        # What is followed in the store
        self._quotas = Informer(store, kinds.RESOURCE_QUOTA.id)
        self._namespaces = Informer(store, kinds.NAMESPACE.id)
        self._pods = Informer(store, kinds.POD.id)
        sources = (kinds.CONFIG_MAP, kinds.SECRET, kinds.VOLUME_CLAIM, kinds.SERVICE_ACCOUNT)
        self._sources = {kind.id: Informer(store, kind.id) for kind in sources}
        self._config = ConfigWatcher(self._sources[kinds.CONFIG_MAP.id])

        # What is published
        self._publisher = EndpointPublisher(tables.endpoints, tables.scale, self.registry.under, self.registry.current)
        self._instance_publisher = InstancePublisher(tables.instances, self.registry.under)

        # What instances need
        self.reservations = Reservations(quotas=self._quotas.list)
        self._draining = Draining(
            tables.endpoints, self._publisher.publish_when_available, self._clock, options.quiet_seconds
        )
        self.isolation = Isolation(
            options.firewall, self._namespaces, lambda: self._config.current.security, runtime.network
        )
        self._volume_sync = VolumeSync(
            runtime,
            self._sources,
            is_needed=self._needs,
            on_change=self._sources_changed,
            key=partial(shared_key, redis, options.keyring),
            longest_token=lambda: self._config.current.security.max_token_seconds,
            clock=self._clock,
        )
        self.armed = ArmedPool(self.registry, options.armed_instances, options.memory, self.isolation.remove)
        self.deps = InstanceDeps(
            runtime,
            checker,
            on_change=partial(self._queue.mark, decide_first=False),
            on_removed=self._instance_removed,
            wait_until_drained=self._draining.wait_until_drained,
            reservations=self.reservations,
            on_capacity_short=self._free_capacity,
            pull=ImagePuller(runtime, store, redis).ensure,
            admit=self.isolation.admit,
            prepare=self._volume_sync.prepare,
            armed=self.armed,
            clock=self._clock,
        )

        # What changes scale
        self.armed.begin(self.deps)
        self._revisions = RevisionWatch(
            store, self._config, self.registry, self._queue, self.deps, self._spawn, self.armed.revision_changed
        )
        self._takeover = Takeover(
            runtime, self.registry, self._revisions, self._queue, self.isolation, self.armed, self._spawn
        )
        self._reports = ReportSubscriber(
            redis, on_poke=self._poked, on_report=self._reported, on_listening=self._listening_changed
        )
        self._engine_events = EngineEvents(
            runtime, self.registry.instances, self.registry.instance, self._takeover.adopt, self.armed, self._clock
        )
        self._meter = UsageMeter(runtime, self.registry.by_uid.values, self._queue.mark, options.measure_seconds)
        self._disk_watch = DiskWatch(
            runtime,
            self.registry.instances,
            lambda: self._config.current.security,
            interval_seconds=options.disk_seconds,
        )

    async def run(self) -> None:
        """Lead until cancelled; instances keep running."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                followed = (self._revisions.revisions, self._pods, self._quotas, self._namespaces)
                informers = Informers(self._store, [*followed, *self._sources.values()])
                tasks.create_task(informers.run())
                await informers.synced()
                await self._config.synced()
                await self._take_over()
                for loop in (
                    self._work,
                    self._tick,
                    self.armed.run,
                    self._reports.run,
                    self._engine_events.follow,
                    self._engine_events.sweep,
                    self._republish,
                    self._instance_publisher.run,
                    self._meter.run,
                    self._volume_sync.run,
                    self._disk_watch.run,
                    self.isolation.run,
                ):
                    tasks.create_task(loop())
                self._pods.subscribe(self._pod_changed)
                for informer in self._sources.values():
                    informer.subscribe(self._volume_sync.source_changed, existing=False)
        finally:
            await asyncio.gather(*(instance.abandon() for instance in self.registry.instances()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work)

    async def _take_over(self) -> None:
        _, scale = await until_available(self._tables.scale.snapshot)
        _, endpoints = await until_available(self._tables.endpoints.snapshot)
        _, instances = await until_available(self._tables.instances.snapshot)
        self.reservations.capacity = self._options.machine.override(await until_available(self._runtime.capacity))
        self._revisions.begin({status.uid: status for _, status in scale.values()}, self._volume_sync)
        self._config.subscribe(lambda _: self._configuration_changed())
        await self._takeover.adopt_all(
            {endpoint.id: endpoint for _, entry in endpoints.values() for endpoint in entry.endpoints},
            {row.name: row for _, entry in instances.values() for row in entry.instances},
        )
        for key in {*scale, *endpoints} - set(self.registry.current):
            await until_available(partial(self._publisher.remove, key))

    # Changes in the store

    def _configuration_changed(self) -> None:
        self.deps.checker.logs = self._config.current.observability.enable_probe_request_log
        self.isolation.configuration_changed()
        self._revisions.configuration_changed()

    def _sources_changed(self, uid: str) -> None:
        self.armed.sources_changed(uid)
        self._revisions.sources_changed(uid)

    def _needs(self, volume: EngineVolume) -> bool:
        """Return whether the owner of a volume exists."""
        if volume.kind != "claim":
            return self._revisions.owns(volume) or self.armed.knows(volume.owner)
        namespace, _, name = volume.about.partition("/")
        # A store without any Revision has probably lost its objects, which may be restored.
        claims = self._sources[kinds.VOLUME_CLAIM.id]
        return self._revisions.is_empty() or claims.uid(namespace, name) == volume.owner

    def _pod_changed(self, notice: ObjectChange) -> None:
        """Deleting a Pod removes its instance; the Revision gets another one if it needs it."""
        if notice.new is None or "deletionTimestamp" not in notice.new["metadata"]:
            return
        instance = self.registry.instance(notice.new["metadata"]["name"])
        if instance and instance.revision.startswith(f"{notice.new['metadata']['namespace']}/"):
            instance.drain()

    # Scaling

    async def _work(self) -> None:
        while True:
            due = await self._queue.take()
            for key, decide_first in due.items():
                for scaler in self.registry.under(key):
                    try:
                        scaler.act(decide_first=decide_first)
                        if scaler.may_be_armed():
                            self.armed.wake()
                    except Exception:
                        # A bug that one Revision triggers must not stop the others.
                        log.exception("revision not scaled", revision=key)
            keys = list(due)
            for start in range(0, len(keys), PUBLISHED_TOGETHER):
                # After a start all Revisions are due: one connection for each of them would be too many.
                await asyncio.gather(*(self._publish(key) for key in keys[start : start + PUBLISHED_TOGETHER]))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._options.tick_seconds)
            exists = self._sources[kinds.CONFIG_MAP.id].get(*CONFIGURATION) is not None
            self._revisions.note_configuration(exists=exists)
            without_instance, unsettled = 0, []
            for scaler in self.registry.by_uid.values():
                without_instance += scaler.may_wake()
                if scaler.is_settled():
                    continue
                unsettled.append(scaler)
                before = scaler.spec.rollout_from
                namespace = scaler.key.partition("/")[0]
                if before and scaler.compare(self.registry.current.get(f"{namespace}/{before}")):
                    self._queue.mark(scaler.key)
                if not scaler.quiet:
                    self._queue.mark(scaler.key)
            self._runtime.set_warm_demand(max(0, without_instance - self.armed.waiting))
            self._step_down(unsettled)
            if self._removed >= REMOVED_COLLECTED:
                gc.collect()
                self._removed = 0

    def _step_down(self, scalers: Iterable[RevisionScaler]) -> None:
        """Apply the idle policy: instances that were idle for long enough, or that keep too much memory, step down."""
        idle = {instance.name: (scaler, instance) for scaler in scalers for instance in scaler.idle_instances()}
        capacity = self.reservations.capacity
        bound = int(capacity.memory_bytes * self._options.machine.paused_memory_fraction) if capacity else 0
        for step in step_down([instance for _, instance in idle.values()], bound, self._clock()):
            idle[step.name][0].step_down(step)

    def _free_capacity(self) -> None:
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

    def _instance_removed(self, name: str) -> None:
        self._removed += 1
        self.isolation.remove(name)

    # Publishing

    async def _publish(self, key: str) -> None:
        for scaler in list(self.registry.under(key)):
            if scaler.deleted and not scaler.instances:
                self.registry.remove(scaler)
                self.deps.loopback_revisions.discard(scaler.uid)
                self._volume_sync.remove(scaler.revision)
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

    # Reports

    def _listening_changed(self, complete: bool) -> None:
        self._draining.listening_since = self._clock() if complete else float("inf")

    def _poked(self, poke: Poke) -> None:
        scaler = self.registry.current.get(poke.revision)
        if scaler:
            scaler.poke(poke.activator, poke.waiting, self._clock())
            self._queue.mark(scaler.key)

    def _reported(self, report: Report) -> None:
        now = self._clock()
        # For an activator whose clock differs from ours, the period ends when its report arrives.
        counted = min(report.at, now) if abs(now - report.at) <= SKEW_SECONDS else now
        for row in report.revisions:
            scaler = self.registry.current.get(row.revision)
            if scaler:
                scaler.report(report.activator, row, now, report.period, counted)
        self._draining.record(report, now)
