"""The node role: owns the instances of this machine, whatever happens to the leader. Kubernetes: the kubelet."""

import asyncio
import contextvars
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from autoscaler.decision.capacity import Machine, Reservations
from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.instance import ManagedInstance
from autoscaler.instances.transitions import IDLE, LifecycleState
from autoscaler.io.engine_events import EngineEvents
from autoscaler.kubelet.adoption import Adoption, LastPublished
from autoscaler.kubelet.armed_pool import ArmedPool, Memory
from autoscaler.kubelet.disk_watch import INTERVAL_SECONDS, DiskWatch
from autoscaler.kubelet.drain_requests import DrainRequests
from autoscaler.link.protocol import Blueprint, LeaderEnd
from autoscaler.node.image_puller import ImagePuller
from autoscaler.node.isolation import Firewall, Isolation
from autoscaler.probes.checks import Checker
from autoscaler.runtime.model import EngineVolume, InstanceSpec
from autoscaler.runtime.protocol import Runtime
from autoscaler.spec.compressed_revision import CompressedRevision
from autoscaler.spec.followed_objects import FollowedObjects
from autoscaler.spec.instance_spec import instance_spec, needs_preparation, probes
from autoscaler.spec.volume_sync import VolumeSync
from knoll.auth.token_key import shared_key
from knoll.concurrency.backoff import until_available
from knoll.messages.assignments import Assignment
from knoll.process.memory import total_and_available
from knoll.redis.client import RedisClient
from knoll.redis.encryption import PLAIN, Keyring
from knoll.resources.models.revision import Revision
from knoll.store.protocol import Store
from knoll.values import kinds

log = structlog.get_logger()

REMOVED_COLLECTED = 100
"""Garbage is collected after this many removed instances, which leave about 2 MB; that takes tens of milliseconds."""
COLLECT_SECONDS = 1.0
"""Delay of the garbage collection, so that the last removal is published before it."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Settings of a node."""

    name: str = ""
    """Empty on a single machine."""
    firewall: Firewall | None = None
    """None when the platform has no firewall."""
    machine: Machine = field(default_factory=Machine)
    keyring: Keyring = PLAIN
    disk_seconds: float = INTERVAL_SECONDS
    """Interval at which the disk use of instances is measured."""
    armed_instances: int = 0
    """How many instances may be armed."""
    memory: Memory = total_and_available
    clock: Callable[[], float] = time.time


class Kubelet:
    """The instances of one machine.

    It has more attributes than the style allows: it is the place where the services of a machine are created and
    connected.
    """

    def __init__(
        self, runtime: Runtime, checker: Checker, store: Store, redis: RedisClient, options: NodeOptions
    ) -> None:
        self.runtime, self._options = runtime, options
        self._tasks: asyncio.TaskGroup | None = None
        self._leader: LeaderEnd | None = None
        """The leader in this process; None while another process leads, or none."""
        self._removed = 0
        """Instances removed since the last garbage collection."""
        self._held: set[str] = set()
        """Armed instances that a leader in this process is about to release."""
        self._context = contextvars.copy_context()
        self._listeners: list[Callable[[str], None]] = []
        self.instances: dict[str, ManagedInstance] = {}
        """By name; an instance is kept here until nothing of it is left."""
        self._by_uid: defaultdict[str, dict[str, ManagedInstance]] = defaultdict(dict)
        """By uid of their Revision, and name."""
        self.followed = FollowedObjects(store)
        self.catalog = self.followed.catalog
        self.adopted = asyncio.Event()
        """Set once the running instances have been adopted."""

        self.reservations = Reservations()
        self.drains = DrainRequests(options.clock, self._changed)
        self.isolation = Isolation(
            options.firewall,
            self.followed.namespaces,
            lambda: self.followed.config.current.security,
            runtime.network,
        )
        self._volume_sync = VolumeSync(
            runtime,
            self.followed.sources,
            is_needed=self._needs,
            on_change=self._sources_changed,
            key=partial(shared_key, redis, options.keyring),
            longest_token=lambda: self.followed.config.current.security.max_token_seconds,
            clock=options.clock,
        )
        self.armed = ArmedPool(
            self.catalog, self._is_taken, options.armed_instances, options.memory, self.isolation.remove
        )
        self.deps = InstanceDeps(
            runtime,
            checker,
            on_change=self._changed,
            on_removed=self._instance_removed,
            wait_until_drained=self.drains.wait,
            reservations=self.reservations,
            on_capacity_short=self._capacity_short,
            pull=ImagePuller(runtime, store, redis, options.name).ensure,
            admit=self.isolation.admit,
            prepare=self._volume_sync.prepare,
            clock=options.clock,
            node=options.name,
        )
        self.armed.begin(self.deps)
        self._adoption = Adoption(self.deps, self.catalog, self.isolation, self.armed, self._spawn, self._adopted)
        self._engine_events = EngineEvents(
            runtime, self.instances.values, self.instances.get, self._adoption.adopt, self.armed, options.clock
        )
        self._disk_watch = DiskWatch(
            runtime,
            self.instances.values,
            lambda: self.followed.config.current.security,
            interval_seconds=options.disk_seconds,
        )

    @property
    def name(self) -> str:
        """Empty on a single machine."""
        return self._options.name

    @property
    def leads(self) -> bool:
        """Whether the leader is in this process."""
        return self._leader is not None

    def memory_bytes(self) -> int:
        """Return the memory of the machine; 0 while it is unknown."""
        capacity = self.reservations.capacity
        return capacity.memory_bytes if capacity else 0

    async def run(self, last_published: Callable[[], Coroutine[Any, Any, LastPublished]]) -> None:
        """Own the instances of this machine until cancelled; they keep running.

        Args:
            last_published: reads what an earlier process published about them.
        """
        self._context = contextvars.copy_context()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self.followed.run())
                await self.followed.synced()
                capacity = await until_available(self.runtime.capacity)
                self.reservations.capacity = self._options.machine.override(capacity)
                self._configuration_changed()
                self.followed.config.subscribe(lambda _: self._configuration_changed())
                self.catalog.subscribe(self)
                await self._adoption.adopt_all(await last_published())
                self.adopted.set()
                for loop in (
                    self.armed.run,
                    self._engine_events.follow,
                    self._engine_events.sweep,
                    self._volume_sync.run,
                    self._disk_watch.run,
                    self.isolation.run,
                ):
                    tasks.create_task(loop())
                for informer in self.followed.sources.values():
                    informer.subscribe(self._volume_sync.source_changed, existing=False)
        finally:
            await asyncio.gather(*(instance.abandon() for instance in self.instances.values()))

    # For the leader

    def connect(self, leader: LeaderEnd | None) -> None:
        """Report to this leader from now on. Args: leader: in this process; None when it has stopped leading."""
        self._leader = leader
        self._held.clear()
        self.drains.connect(leader.wait_until_drained if leader else None)

    def listen(self, on_change: Callable[[str], None]) -> None:
        """Register a callback for changes of instances; it gets the Revision, `namespace/name`."""
        self._listeners.append(on_change)

    def hold(self, armed: str) -> None:
        """Keep an armed instance for an assignment of the same name, which follows."""
        if self.armed.take(armed) is not None:
            self._held.add(armed)

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> ManagedInstance | None:
        """Carry out an assignment; returns None when the instance does not exist and cannot be started."""
        instance = self.instances.get(assignment.instance)
        if instance is None:
            return None if assignment.goal == "removed" else self._begin(assignment, blueprint)
        if assignment.drained:
            self.drains.answer(instance.name, assignment.drained, empty=assignment.empty)
        if assignment.generation > instance.generation:
            instance.generation = assignment.generation
            _pursue(instance, assignment)
        return instance

    def release_hold(self, instance: str) -> None:
        """Stop keeping an armed instance that was held: it is no longer needed."""
        self._held.discard(instance)

    def disarm(self, armed: str) -> None:
        """Remove an armed instance that no start will release; does nothing if there is none of that name."""
        if self.armed.take(armed) is not None:
            self.armed.wake()

    def _begin(self, assignment: Assignment, blueprint: Blueprint | None) -> ManagedInstance | None:
        name = assignment.instance
        armed = self.armed.take(name)
        self._held.discard(name)
        compressed = blueprint.compressed if blueprint else self.catalog.current(assignment.uid)
        if compressed is None:
            return None
        if armed is not None:
            spec, of_containers, prepared = armed.spec, armed.probes, False
        elif blueprint is not None:
            spec, of_containers, prepared = blueprint.spec, blueprint.probes, not blueprint.needs_preparation
        else:
            revision = compressed.revision()
            spec, of_containers = instance_spec(revision, name), probes(revision)
            prepared = not needs_preparation(revision.spec)
        instance = ManagedInstance(
            self.deps,
            spec,
            of_containers,
            requested_at=assignment.requested,
            prepare=None if prepared else partial(self._prepare, name, compressed),
            armed=armed,
        )
        instance.generation = assignment.generation
        self._add(instance)
        # Not in the leader's context: writes in that one stop when its lease ends.
        self._context.run(instance.start)
        return instance

    async def _prepare(self, name: str, compressed: CompressedRevision) -> InstanceSpec:
        return await self._volume_sync.prepare(compressed.revision(), name)

    # Changes in the store

    def revision_put(self, revision: Revision, compressed: CompressedRevision) -> None:
        """See `CatalogSubscriber`."""
        self.armed.revision_changed(revision)
        self._volume_sync.add(revision, compressed)

    def revision_deleted(self, uid: str, *, vanished: bool) -> None:
        """See `CatalogSubscriber`."""
        self.armed.wake()
        self._forget_deleted(uid)

    def _forget_deleted(self, uid: str) -> None:
        """Forget a Revision if it is deleted and no instance of it is left."""
        compressed = self.catalog.get(uid)
        if compressed is not None and self.catalog.current(uid) is None and uid not in self._by_uid:
            self.deps.loopback_revisions.discard(uid)
            self._volume_sync.remove(compressed.revision())
            self.catalog.forget(uid)

    def _configuration_changed(self) -> None:
        self.deps.checker.logs = self.followed.config.current.observability.enable_probe_request_log
        self.isolation.configuration_changed()

    def _sources_changed(self, uid: str) -> None:
        self.armed.sources_changed(uid)
        for instance in self._by_uid.get(uid, {}).values():
            instance.retry_now()
        if self._leader is not None:
            self._leader.sources_changed(uid)

    def _needs(self, volume: EngineVolume) -> bool:
        """Return whether the owner of a volume exists."""
        if volume.kind != "claim":
            of_revision = self.catalog.get(volume.owner) is not None or self.catalog.exists(volume.about, volume.owner)
            return of_revision or volume.owner in self.instances or self.armed.knows(volume.owner)
        namespace, _, name = volume.about.partition("/")
        # A store without any Revision has probably lost its objects, which may be restored.
        claims = self.followed.sources[kinds.VOLUME_CLAIM.id]
        return self.catalog.is_empty() or claims.uid(namespace, name) == volume.owner

    # Instances

    def _is_taken(self, name: str) -> bool:
        return name in self.instances or name in self._held

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work)

    def _add(self, instance: ManagedInstance) -> None:
        self.instances[instance.name] = self._by_uid[instance.uid][instance.name] = instance

    def _adopted(self, instance: ManagedInstance) -> None:
        self._add(instance)
        if self._leader is not None:
            self._leader.instance_reported(instance)
        self._changed(instance.revision)

    def _changed(self, revision: str) -> None:
        if self._leader is not None:
            self._leader.instance_changed(revision)
        for listener in self._listeners:
            listener(revision)

    def _capacity_short(self) -> None:
        if self._leader is not None:
            self._leader.capacity_short()

    def _instance_removed(self, name: str) -> None:
        self.isolation.remove(name)
        instance = self.instances.pop(name, None)
        if instance is None:
            return
        siblings = self._by_uid[instance.uid]
        del siblings[name]
        if not siblings:
            del self._by_uid[instance.uid]
            self._forget_deleted(instance.uid)
        if self._leader is not None:
            self._leader.instance_removed(name)
        self._removed += 1
        if self._removed >= REMOVED_COLLECTED:
            self._removed = 0
            asyncio.get_running_loop().call_later(COLLECT_SECONDS, gc.collect)


def _pursue(instance: ManagedInstance, assignment: Assignment) -> None:
    """Start the transition to the goal from the instance's present state: it may have changed since the decision."""
    match assignment.goal, instance.state:
        case "removed", _:
            instance.drain()
        case "serving", state:
            if state in IDLE:
                instance.wake(assignment.requested)
        case "paused" | "stopped" as target, LifecycleState.READY:
            instance.go_idle(target)
        case "stopped", LifecycleState.PAUSED | LifecycleState.STOPPING:
            instance.step_down()
        case _, LifecycleState.STARTING | LifecycleState.UNREADY:
            instance.drain()  # removed rather than idle: it has not been ready yet
        case _:
            pass
