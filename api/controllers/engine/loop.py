"""The controllers' loop: changes add keys to a queue, and workers reconcile them. Nothing is polled.

`dispatch` makes the decisions and `executor` the writes; this module decides which keys a change adds.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from api.controllers.engine import creations, dispatch, status_writes, watch_mappings
from api.controllers.engine.acknowledgements import Acknowledgements
from api.controllers.engine.cache import CacheChange
from api.controllers.engine.cluster_state import ClusterState
from api.controllers.engine.creations import Creations, Step
from api.controllers.engine.executor import Executor
from api.controllers.engine.failures import Failures
from api.controllers.engine.metrics import ControllerMetrics
from api.controllers.engine.recorder import Recorder
from api.controllers.engine.service_order import ServiceOrder
from api.controllers.engine.tables import Outputs, Tables
from api.controllers.engine.work_queue import WorkQueue
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import (
    Action,
    ObjectKey,
    PutRoute,
    ReconcileResult,
    RemoveRoute,
    UpdateStatus,
)
from api.controllers.route import hosts
from knoll.builds.queue import JobQueue
from knoll.concurrency.backoff import Backoff, until_available
from knoll.config import platform
from knoll.config.platform import PlatformConfig
from knoll.store.protocol import PackedListing, Store, WatchEvent
from knoll.tables.follower import follow_table
from knoll.tables.protocol import Table
from knoll.values import kinds
from knoll.values.errors import (
    AlreadyExistsError,
    ConflictError,
    ExpiredError,
    KnollError,
    NotFoundError,
    StoreUnavailableError,
)
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

T = TypeVar("T")
WORKERS = 16
"""Keys that are reconciled concurrently: enough that none waits for the round trips of another to Redis."""
STATUS_DELAY_SECONDS = 0.2
"""How long an intermediate status may wait for the next one, in seconds."""
YIELD_EVERY = 200
"""Number of objects of a listing that are processed before other tasks get a turn."""

WATCHED = (
    *watch_mappings.RECONCILED, kinds.CORE_SERVICE.id, kinds.CONFIG_MAP.id,
    kinds.NAMESPACE.id, kinds.ROLE_BINDING.id, kinds.CLUSTER_ROLE_BINDING.id,
)  # fmt: skip


class Controllers:
    """Reconciles every object. Only one process may run it at a time; `run` ends when it is cancelled.

    It has more attributes than the style allows: it is where the parts of the control loop are created and connected.
    """

    def __init__(
        self,
        store: Store,
        tables: Tables,
        queue: JobQueue,
        naming: hosts.Naming = hosts.Naming(),  # noqa: B008 (immutable)
        clock: Callable[[], float] = time.time,
        workers: int = WORKERS,
        metrics: ControllerMetrics | None = None,
    ) -> None:
        """Make the controllers.

        Args:
            naming: the activator's ports and the hosts of the platform itself; the rest comes from the ConfigMaps.
            clock: returns epoch seconds.
            workers: keys that are reconciled concurrently.
            metrics: counts reconciliations.
        """
        self._metrics = metrics or ControllerMetrics()
        self._store = store
        self._tables = tables
        self._jobs = queue
        self._clock = clock
        self._workers = workers
        self.state = ClusterState(naming=naming)
        self._order = ServiceOrder(self.state.cache)
        self.queue = WorkQueue(rank=self._order.rank)
        self._decision_lock = asyncio.Lock()
        self._versions_read: dict[str, int] = {}
        """The version of the store up to which each kind was read, by resource."""
        self._unfinished: set[ObjectKey] | None = None
        """What the last term of leadership left undone; None before the first, which begins with every object."""
        self._status_deadlines: dict[ObjectKey, float] = {}
        """Objects whose status waits to be written, and until when, on the loop's clock."""
        self._recorder = Recorder(store, clock)
        self._acknowledgements = Acknowledgements(tables.routing, self._reached)
        outputs = Outputs(store, tables, queue)
        self._executor = Executor(outputs, self.state, self._recorder.emit, self._seen, clock)
        self._creations = Creations(self.state, self.queue, self._executor, self._metrics, clock)
        self._failures = Failures(store, self.state.cache, self.queue, self._executor, self._seen, clock)

    @property
    def version(self) -> int:
        """The version of the store that was read; 0 before the first run."""
        return max(self._versions_read.values(), default=0)

    async def run(self) -> None:
        """Run until cancelled; retries while Redis is unavailable.

        May be run again, after another process may have led: it then looks only at what changed meanwhile.
        """
        await self._load_when_available()
        try:
            async with asyncio.TaskGroup() as group:
                ready = [
                    self._start_following(group, self._tables.resolutions, self.state.resolutions, kinds.REVISION.id),
                    self._start_following(group, self._tables.scale, self.state.scale, kinds.REVISION.id),
                    self._start_following(group, self._tables.builds, self.state.builds, kinds.BUILD_KIND.id),
                ]
                group.create_task(self._feed())
                group.create_task(self._acknowledgements.run())
                group.create_task(self._recorder.run())
                for event in ready:
                    await event.wait()
                if self._unfinished is None:
                    self._add_all()
                for key in self._unfinished or ():
                    self.queue.add(key)
                self._unfinished = set()
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            dropped = self.queue.close()
            if self._unfinished is not None:
                self._unfinished |= dropped

    # Changes

    async def _load_when_available(self) -> None:
        await until_available(self._load, "objects not listed")

    async def _load(self) -> None:
        """Read every object and the routing table."""
        for resource in WATCHED:
            listing = await self._store.list_packed(resource)
            if resource == kinds.CONFIG_MAP.id:
                own = [item for item in listing.items if item.key.startswith(f"{SYSTEM_NAMESPACE}/")]
                listing = PackedListing(own, listing.version)
            self._versions_read[resource] = listing.version
            for index, seen in enumerate(self.state.cache.replace(resource, listing)):
                self._seen(seen)
                if index % YIELD_EVERY == YIELD_EVERY - 1:
                    # A long list must not block the other tasks of this process.
                    await asyncio.sleep(0)
        _, entries = await self._tables.routing.snapshot()
        lost = [path for path, written in self.state.routing.items() if entries.get(path) != written]
        self.state.routing.clear()
        self.state.routing.update(entries)
        for path in lost:
            # Redis lost these entries: reconciling their objects restores them.
            self.queue.add(dispatch.routing_key(path))
        await self._acknowledgements.check()
        self.state.activators = self._acknowledgements.living

    async def _feed(self) -> None:
        version, backoff = min(self._versions_read.values()), Backoff()
        while True:
            try:
                async for event in self._store.watch(version):
                    backoff.reset()
                    version = event.version
                    self._take(event)
            except ExpiredError:
                await self._load_when_available()
                version = min(self._versions_read.values())
            except KnollError as error:
                log.warning("objects not watched", error=str(error))
                await backoff.wait()

    def _take(self, event: WatchEvent) -> None:
        if event.resource not in self._versions_read or event.version <= self._versions_read[event.resource]:
            return
        _, namespace, name = objects.key_of(event.resource, event.body)
        if event.resource == kinds.CONFIG_MAP.id and namespace != SYSTEM_NAMESPACE:
            # Users' ConfigMaps may be many and large, and the controllers do not need them.
            return
        if event.type == "DELETED":
            self._seen(self.state.cache.remove(event.resource, namespace, name, event.version))
        else:
            by = self._executor.writers_of((event.resource, namespace, name), event.body)
            self._seen(self.state.cache.put(event.resource, event.body, packed=event.data), by)

    def _seen(self, seen: CacheChange | None, by: Collection[ObjectKey] = ()) -> None:
        if seen is None:
            return
        if seen.after is None and seen.before is not None:
            self.state.asked.pop(seen.before["metadata"]["uid"], None)
            self.state.shown.pop(seen.before["metadata"]["uid"], None)
        if seen.key[0] == kinds.CONFIG_MAP.id:
            self._configured(seen)
        for key in watch_mappings.keys(seen, self.state.cache, by):
            self.queue.add(key)

    def _configured(self, seen: CacheChange) -> None:
        if seen.key[1] != SYSTEM_NAMESPACE or seen.key[2] not in platform.NAMES:
            return
        maps = {name: self.state.cache.get(kinds.CONFIG_MAP.id, SYSTEM_NAMESPACE, name) for name in platform.NAMES}
        data = {name: config_map.get("data") or {} for name, config_map in maps.items() if config_map}
        before = self.state.config
        self.state.config, problems = PlatformConfig.from_config_maps(data, before)
        for problem in problems:
            log.warning("configuration not applied", error=str(problem))
        config = self.state.config
        if config.gc != before.gc:
            self._add_all_of(kinds.CONFIGURATION.id)
        if config.observability.revision_url_template != before.observability.revision_url_template:
            self._add_all_of(kinds.REVISION.id)
        naming = replace(self.state.naming, domain=config.domain, network=config.network)
        if naming != self.state.naming:
            self.state.naming = naming
            self._add_all_of(kinds.ROUTE.id)
            self._add_all_of(kinds.DOMAIN_MAPPING.id)

    def _start_following(
        self, group: asyncio.TaskGroup, table: Table[T], into: dict[str, T], resource: str
    ) -> asyncio.Event:
        def changed(field: str) -> None:
            namespace, _, name = field.partition("/")
            self.queue.add((resource, namespace, name))

        ready = asyncio.Event()
        group.create_task(follow_table(table, into, changed, ready))
        return ready

    def _reached(self, path: str, version: int) -> None:
        self.state.acknowledged[path] = version
        self.queue.add(dispatch.routing_key(path))

    def _add_all_of(self, resource: str) -> None:
        for namespace, name in self.state.cache.names(resource):
            self.queue.add((resource, namespace, name))

    def _add_all(self) -> None:
        for resource in watch_mappings.RECONCILED:
            for namespace, name in self.state.cache.names(resource):
                self.queue.add((resource, namespace, name), in_background=True)
        for path in self.state.routing:
            self.queue.add(dispatch.routing_key(path), in_background=True)

    # Workers

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                async with self._decision_lock:
                    # One reconciliation in each iteration of the event loop: requests, watches and the lease's renewal
                    # come between two of them, however many are due.
                    await asyncio.sleep(0)
                await self._reconcile(key)
            except asyncio.CancelledError:
                # The next term of leadership begins with it.
                self.queue.add(key)
                raise
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: ObjectKey) -> None:
        self.state.activators = self._acknowledgements.living
        if key[0] == kinds.BUILD_KIND.id:
            with contextlib.suppress(StoreUnavailableError):  # the position in the status may be outdated
                self.state.build_order = await self._jobs.order()
        self._metrics.reconciled(key[0])
        outcome = dispatch.decide(key, self.state, self._clock())
        level, children = [(key, outcome)], set[ObjectKey]()
        try:
            while level:
                steps: list[Step] = []
                # What follows from several new objects is written together, so that Redis syncs its file once.
                carried_out = (
                    await asyncio.gather(*(self._carry_out(*step, steps, children) for step in level))
                    if len(level) > 1
                    else [await self._carry_out(*level[0], steps, children)]
                )
                level = steps
                if not all(carried_out):
                    for left, _ in steps:
                        self.queue.add(left)
                    return
        except asyncio.CancelledError:
            for child in children:
                self.queue.add(child)
            raise
        finally:
            for child in children:
                self.queue.done(child)

    async def _carry_out(
        self, key: ObjectKey, outcome: ReconcileResult, steps: list[Step], children: set[ObjectKey]
    ) -> bool:
        """Carry out the actions of one reconciliation; returns whether all succeeded.

        Args:
            steps: gets the reconciliations of the objects that were created.
            children: gets their keys, which the queue holds until all steps are done.
        """
        path = dispatch.routing_path(key)
        programmed = self.state.routing.get(path) if path is not None else None
        before = frozenset(programmed[1].hosts) if programmed is not None else frozenset()
        waits = self._waits(key, outcome.actions)
        actions = [action for action in outcome.actions if not (waits and isinstance(action, UpdateStatus))]
        for group in [actions] if creations.are_independent(actions) else [[action] for action in actions]:
            failed = await self._carry_out_group(key, group, steps, children)
            if failed is not None:
                action, error = failed
                if isinstance(error, ConflictError | AlreadyExistsError | NotFoundError):
                    await self._failures.conflicted(key, action, error)
                else:
                    await self._failures.failed(key, error, is_new=key in children)
                return False
        self._failures.none(key)
        self._order.reconciled(key)
        if outcome.again:
            self.queue.add(key)
        if outcome.requeue_after is not None:
            self.queue.add_after(key, outcome.requeue_after)
        if path is not None:
            self._await_acknowledgement(path, outcome.waits)
        if key[0] == kinds.ROUTE.id and any(isinstance(action, PutRoute | RemoveRoute) for action in outcome.actions):
            for mapping in watch_mappings.mappings_to(key[1], key[2], self.state.cache):
                self.queue.add(mapping)
            for contender in watch_mappings.contenders(
                f"{key[1]}/{key[2]}", before, self.state.routing, self.state.cache
            ):
                self.queue.add(contender)
        return True

    async def _carry_out_group(
        self, key: ObjectKey, actions: Sequence[Action], steps: list[Step], children: set[ObjectKey]
    ) -> tuple[Action, KnollError] | None:
        """Carry out one action, or several that are independent; returns the first one that failed, and its error."""
        created = [action for action in actions if creations.created_with_status(action)]
        errors = iter(await self._creations.create(key, created, steps, children) if created else ())
        failed: tuple[Action, KnollError] | None = None
        error: KnollError | None = None
        for action in actions:
            if creations.created_with_status(action):
                error = next(errors)
            elif error is None:
                try:
                    await self._executor.carry_out(action, (key,))
                except KnollError as raised:
                    error = raised
            if error is not None and failed is None:
                failed = action, error
        return failed

    def _waits(self, key: ObjectKey, actions: Sequence[Action]) -> bool:
        """Whether a status is not written now; if so, the key is queued for the time when it must be."""
        now = asyncio.get_running_loop().time()
        if not status_writes.can_wait(actions) or now >= self._status_deadlines.setdefault(
            key, now + STATUS_DELAY_SECONDS
        ):
            self._status_deadlines.pop(key, None)
            return False
        self.queue.add_after(key, self._status_deadlines[key] - now)
        return True

    def _await_acknowledgement(self, path: str, waits: bool) -> None:
        if waits and path in self.state.routing:
            self._acknowledgements.expect(path, self.state.routing[path][0])
        else:
            self._acknowledgements.forget(path)
