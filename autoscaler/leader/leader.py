"""The leader's duty: every Revision. Reads the store and what activators say, acts on the engine, publishes."""

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import structlog
from redis.asyncio import Redis

from autoscaler.decision.capacity import Machine, Room
from autoscaler.decision.idle_policy import descend
from autoscaler.instances.draining import QUIET_SECONDS, Draining
from autoscaler.instances.instance import Member, World
from autoscaler.io.endpoint_publisher import Publishing
from autoscaler.io.engine_events import Watching
from autoscaler.io.instance_publisher import Showing
from autoscaler.io.report_subscriber import Listening
from autoscaler.leader.disk_watch import LOOK_SECONDS, DiskWatch
from autoscaler.node.image_puller import Pulling
from autoscaler.node.isolation import Firewall, Isolation
from autoscaler.node.retry import patiently
from autoscaler.probes.checks import Checker
from autoscaler.revisions.revision_scaler import Scaler
from autoscaler.revisions.usage import SYNC_SECONDS, Measuring
from autoscaler.runtime.protocol import Instance, Runtime, Volume
from autoscaler.spec.volume_sync import Delivery
from knoll.auth.token_key import shared_key
from knoll.messages.endpoints import Endpoint, RevisionEndpoints
from knoll.messages.instances import InstanceRow, RevisionInstances
from knoll.messages.reports import Poke, Report
from knoll.messages.scale import ScaleStatus
from knoll.redis.encryption import PLAIN, Keyring
from knoll.resources.admission.parsing import parse
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import scaling_spec
from knoll.store.config_watcher import ConfigWatcher
from knoll.store.informer import Informer, Informers, ObjectChange
from knoll.store.protocol import Store
from knoll.tables.protocol import Table
from knoll.values import kinds
from knoll.values.errors import InvalidResourceError, NotFoundError, StoreUnavailableError
from knoll.values.json import Json
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

CONFIGURATION = (SYSTEM_NAMESPACE, "config-autoscaler")
"""Namespace and name of a ConfigMap that is there from a platform's first start on."""
SKEW_SECONDS = 2.0
"""Difference between when an activator says that it counted and when its report comes, up to which it is believed."""
EMPTY_SECONDS = 30.0
"""How long instances are left alone that run beside a store without any Revision."""
REPUBLISH_SECONDS = 30.0
"""The tables are looked at so often, and what they lost is put again: nobody else does after a loss of Redis."""
ENDED_COLLECTED = 100
"""So many instances that have ended leave 2 MB to the collector, which takes some ten milliseconds for them."""


class Autoscaler:
    """All Revisions of one platform, while this process leads."""

    def __init__(
        self,
        runtime: Runtime,
        checker: Checker,
        store: Store,
        redis: "Redis",
        endpoints: Table[RevisionEndpoints],
        scale: Table[ScaleStatus],
        instances: Table[RevisionInstances],
        *,
        firewall: Firewall | None = None,
        machine: Machine = Machine(),  # noqa: B008
        tick_seconds: float = 2.0,
        measure_seconds: float = SYNC_SECONDS,
        quiet_seconds: float = QUIET_SECONDS,
        clock: Callable[[], float] = time.time,
        keyring: Keyring = PLAIN,
        disk_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._runtime, self._store = runtime, store
        self._endpoints, self._scale = endpoints, scale
        self._tick_seconds, self._clock, self._machine = tick_seconds, clock, machine
        self._quotas = Informer(store, kinds.RESOURCE_QUOTA.id)
        self.room = Room(quotas=self._quotas.list)
        self._table_of_instances = instances
        self.scalers: dict[str, Scaler] = {}
        """By uid."""
        self._current: dict[str, Scaler] = {}
        """By `namespace/name`."""
        self._by_key: defaultdict[str, list[Scaler]] = defaultdict(list)
        self._publishing = Publishing(endpoints, scale, self._of, self._current)
        self._draining = Draining(endpoints, self._publishing.surely, clock, quiet_seconds)
        self._revisions = Informer(store, kinds.REVISION.id)
        self._maps = Informer(store, kinds.CONFIG_MAP.id)
        self._sources = {
            kind.id: Informer(store, kind.id) for kind in (kinds.SECRET, kinds.VOLUME_CLAIM, kinds.SERVICE_ACCOUNT)
        }
        self._sources[kinds.CONFIG_MAP.id] = self._maps
        self._delivery = Delivery(
            runtime,
            self._sources,
            needed=self._needs,
            changed=self._sources_changed,
            key=partial(shared_key, redis, keyring),
            longest_token=lambda: self._config.current.security.max_token_seconds,
            clock=clock,
        )
        self._config = ConfigWatcher(self._maps)
        self._namespaces = Informer(store, kinds.NAMESPACE.id)
        self.isolation = Isolation(
            firewall, self._namespaces, lambda: self._config.current.security, self._runtime.network
        )
        self._world = World(
            runtime,
            checker,
            self._member_changed,
            self._draining.drained,
            self.room,
            self._is_crowded,
            pull=Pulling(runtime, store, redis).ensure,
            admit=self.isolation.admit,
            prepare=self._delivery.prepare,
            clock=clock,
        )
        self._pods = Informer(store, kinds.POD.id)
        self._showing = Showing(instances, self._of)
        self._measuring = Measuring(runtime, self.scalers.values, self._mark, measure_seconds)
        self._listening = Listening(redis, poked=self._poked, reported=self._report, heard=self._hears)
        self._watching = Watching(runtime, self._members, self._member, lambda one: self._adopt(one, None), clock)
        self._disk = DiskWatch(runtime, self._members, lambda: self._config.current.security, look_seconds=disk_seconds)
        self._due: dict[str, bool] = {}
        self._ended = 0
        """Instances, since the collector was last asked for what they left."""
        """Revision to whether it is to be decided anew."""
        self._wake = asyncio.Event()
        self._before: Mapping[str, ScaleStatus] = {}
        self._configured_once = self._spawned = False
        self._spawn: Callable[[Coroutine[Any, Any, None]], object] = asyncio.ensure_future

    async def run(self) -> None:
        """Lead until cancelled; instances run on."""
        try:
            async with asyncio.TaskGroup() as tasks:
                followed = [self._revisions, self._pods, self._quotas, self._namespaces, *self._sources.values()]
                informers = Informers(self._store, followed)
                tasks.create_task(informers.run())
                await informers.synced()
                await self._config.synced()
                self._spawn, self._spawned = tasks.create_task, True
                await self._begin()
                duties = (
                    self._work,
                    self._tick,
                    self._listening.run,
                    self._watching.follow,
                    self._watching.sweep,
                    self._republish,
                    self._showing.run,
                    self._measuring.run,
                    self._delivery.run,
                    self._disk.run,
                    self.isolation.run,
                )
                for duty in duties:
                    tasks.create_task(duty())
                self._pods.subscribe(self._pod_changed)
                for informer in self._sources.values():
                    informer.subscribe(self._delivery.noticed, existing=False)
        finally:
            await asyncio.gather(*(member.abandon() for member in self._members()))

    # Beginning

    async def _begin(self) -> None:
        """Take over what runs."""
        _, scale = await patiently(self._scale.snapshot)
        _, endpoints = await patiently(self._endpoints.snapshot)
        _, shown = await patiently(self._table_of_instances.snapshot)
        self.room.capacity = self._machine.over(await patiently(self._runtime.capacity))
        self._before = {status.uid: status for _, status in scale.values()}
        self._revisions.subscribe(self._note)
        self._config.subscribe(lambda _: self._configured())
        known = {each.id: each for _, entry in endpoints.values() for each in entry.endpoints}
        rows = {row.name: row for _, entry in shown.values() for row in entry.instances}
        for instance in await patiently(self._runtime.instances):
            self._adopt(instance, known.get(instance.name), rows.get(instance.name))
        for scaler in self.scalers.values():
            scaler.adopted()
        for key in {*scale, *endpoints} - set(self._current):
            await patiently(partial(self._publishing.remove, key))

    def _adopt(self, instance: Instance, known: Endpoint | None, row: InstanceRow | None = None) -> None:
        self.isolation.know(instance.name, instance.revision.partition("/")[0], instance.address)
        scaler = self.scalers.get(instance.uid)
        # What is `starting` was begun by nobody who is left to end it.
        if scaler is not None and instance.state in ("running", "exited", "paused"):
            log.info("instance adopted", instance=instance.name, revision=instance.revision)
            scaler.adopt(instance, known, row)
            self._mark(scaler.key)
        elif scaler is None and self._exists(instance):
            # Its Revision cannot be looked after just now (its images are not resolved, it cannot be read).
            log.info("instance left as it is", instance=instance.name, revision=instance.revision)
        else:
            why = instance.state if scaler else "its Revision is gone"
            self._spawn(self._remove(instance, why))

    def _exists(self, instance: Instance) -> bool:
        namespace, _, name = instance.revision.partition("/")
        return self._revisions.uid(namespace, name) == instance.uid

    async def _remove(self, instance: Instance, why: str) -> None:
        if not len(self._revisions):
            # A store without a single Revision beside instances that run: rather it was lost, and may be brought back.
            await asyncio.sleep(EMPTY_SECONDS)
            if instance.uid in self.scalers:
                self._adopt(instance, None)
                return
        log.info("instance removed", instance=instance.name, revision=instance.revision, why=why)
        await patiently(partial(self._runtime.stop, instance.name))
        self.isolation.forget(instance.name)

    # Revisions

    def _note(self, notice: ObjectChange) -> None:
        if notice.new is None or "deletionTimestamp" in notice.new["metadata"]:
            body = notice.new or notice.old
            assert body is not None
            scaler = self.scalers.get(body["metadata"]["uid"])
            if scaler and not scaler.deleted:
                if notice.new is None and self._spawned:
                    self._spawn(self._vanished(scaler))
                else:
                    self._delete(scaler)
            return
        if not resolved(notice.new):
            return
        try:
            revision, _ = parse(Revision, notice.new)
        except InvalidResourceError as error:
            log.error("Revision cannot be read", revision=notice.key, error=str(error))
            return
        spec = scaling_spec(revision, self._config.current)
        scaler = self.scalers.get(revision.metadata.uid)
        if scaler is None:
            scaler = Scaler(revision, spec, self._world, before=self._before.get(revision.metadata.uid))
            earlier = self._current.get(scaler.key)
            if earlier:
                earlier.deleted = True
            self.scalers[scaler.uid] = self._current[scaler.key] = scaler
            self._by_key[scaler.key].append(scaler)
            self._delivery.know(revision, scaler.packed)
        elif revision.metadata.annotations == scaler.revision.metadata.annotations and spec == scaler.spec:
            return
        else:
            scaler.change(revision, spec)
            self._delivery.know(revision, scaler.packed)
        self._mark(scaler.key)

    def _sources_changed(self, uid: str) -> None:
        self.scalers[uid].sources_changed()
        self._mark(self.scalers[uid].key)

    def _needs(self, volume: Volume) -> bool:
        """Whether somebody is there that a volume is for."""
        if volume.kind == "claim":
            namespace, _, name = volume.about.partition("/")
            # Without a single Revision the store was rather lost, and may be brought back.
            return not len(self._revisions) or self._sources[kinds.VOLUME_CLAIM.id].uid(namespace, name) == volume.owner
        namespace, _, name = volume.about.partition("/")
        of_revision = volume.owner in self.scalers or self._revisions.uid(namespace, name) == volume.owner
        return of_revision or self._member(volume.owner) is not None

    def _delete(self, scaler: Scaler) -> None:
        scaler.deleted = True
        self._mark(scaler.key)

    async def _vanished(self, scaler: Scaler) -> None:
        """A Revision is gone at once: it was deleted, or all objects were lost, and may be brought back."""
        if self._configured_once and await patiently(self._is_emptied):
            log.warning("the store lost its objects; instances are left for a while", revision=scaler.key)
            await asyncio.sleep(EMPTY_SECONDS)
            namespace, _, name = scaler.key.partition("/")
            if self._revisions.uid(namespace, name) == scaler.uid:
                return
        self._delete(scaler)

    async def _is_emptied(self) -> bool:
        """Whether even the platform's configuration is gone, which nobody deletes."""
        try:
            await self._store.get(kinds.CONFIG_MAP.id, *CONFIGURATION)
        except NotFoundError:
            return True
        return False

    def _pod_changed(self, notice: ObjectChange) -> None:
        """A Pod that is deleted takes its instance with it; the Revision gets another if it needs one."""
        if notice.new is None or "deletionTimestamp" not in notice.new["metadata"]:
            return
        member = self._member(notice.new["metadata"]["name"])
        if member and member.revision.startswith(f"{notice.new['metadata']['namespace']}/"):
            member.drain()

    def _configured(self) -> None:
        self._world.checker.logs = self._config.current.observability.enable_probe_request_log
        self.isolation.configured()
        for scaler in self.scalers.values():
            revision = scaler.revision
            scaler.change(revision, scaling_spec(revision, self._config.current))
            self._mark(scaler.key)

    # Acting

    def _mark(self, key: str, *, anew: bool = True) -> None:
        self._due[key] = anew or self._due.get(key, False)
        self._wake.set()

    def _member_changed(self, member: Member) -> None:
        if member.stage == "gone":
            self._ended += 1
            self.isolation.forget(member.name)
        self._mark(member.revision, anew=False)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            for key, anew in due.items():
                for scaler in self._of(key):
                    try:
                        scaler.act(anew=anew)
                    except Exception:
                        # A mistake of ours with one Revision must not end what is done for all the others.
                        log.exception("Revision not looked after", revision=key)
            await asyncio.gather(*(self._say(key) for key in due))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            self._configured_once = self._configured_once or self._maps.get(*CONFIGURATION) is not None
            sleeping, restless = 0, []
            for scaler in self.scalers.values():
                if scaler.is_settled():
                    sleeping += asleep(scaler)
                    continue
                restless.append(scaler)
                before = scaler.spec.rollout_from
                if before and scaler.compare(self._current.get(f"{scaler.key.partition('/')[0]}/{before}")):
                    self._mark(scaler.key)
                if not scaler.quiet:
                    self._mark(scaler.key)
                sleeping += asleep(scaler)
            self._runtime.expect(sleeping)
            self._descend(restless)
            if self._ended >= ENDED_COLLECTED:
                gc.collect()
                self._ended = 0

    def _descend(self, restless: Iterable[Scaler]) -> None:
        """Down the idle ladder with what rests for long enough, or takes too much memory."""
        by_name = {one.name: (scaler, one) for scaler in restless for one in scaler.resting()}
        capacity = self.room.capacity
        bound = int(capacity.memory_bytes * self._machine.paused_memory_fraction) if capacity else 0
        for step in descend([one for _, one in by_name.values()], bound, self._clock()):
            by_name[step.name][0].descend(step)

    def _is_crowded(self) -> None:
        """An instance waits for room, which the one that is paused the longest may have."""
        found = [(one.since, one.name, scaler) for scaler in self.scalers.values() for one in scaler.resting()
                 if one.rung == "paused" and scaler.members[one.name].need.memory_bytes]  # fmt: skip
        if found:
            _, name, scaler = min(found, key=lambda one: one[:2])
            scaler.members[name].descend() if scaler.spec.stopped_seconds else scaler.members[name].drain()

    def _of(self, key: str) -> list[Scaler]:
        """A Revision's scaler, and those of earlier Revisions of its name that still end."""
        return self._by_key.get(key, [])

    # Saying

    async def _say(self, key: str) -> None:
        for scaler in list(self._of(key)):
            if scaler.deleted and not scaler.members:
                del self.scalers[scaler.uid]
                self._world.on_loopback.discard(scaler.uid)
                self._delivery.forget(scaler.revision)
                self._by_key[key].remove(scaler)
                if self._current.get(key) is scaler:
                    del self._current[key]
        try:
            if self._of(key):
                await self._publishing.publish(key)
            else:
                await self._publishing.remove(key)
                if not self._of(key):
                    self._by_key.pop(key, None)
            self._showing.mark(key)
        except StoreUnavailableError as error:
            log.warning("not published yet", revision=key, error=str(error))
            self._publishing.doubt(key)
            asyncio.get_running_loop().call_later(1.0, self._mark, key)

    async def _republish(self) -> None:
        while True:
            await asyncio.sleep(REPUBLISH_SECONDS)
            self._showing.mark_all()
            try:
                lost = await self._publishing.check()
            except StoreUnavailableError as error:
                log.warning("tables not looked at", error=str(error))
                continue
            for key in lost:
                self._publishing.doubt(key)
                await self._say(key)

    # Listening

    def _hears(self, everything: bool) -> None:
        self._draining.listening_since = self._clock() if everything else float("inf")

    def _poked(self, poke: Poke) -> None:
        scaler = self._current.get(poke.revision)
        if scaler:
            scaler.poke(poke.activator, poke.waiting, self._clock())
            self._mark(scaler.key)

    def _report(self, report: Report) -> None:
        now = self._clock()
        # An activator whose clock is another one than ours counted until its report came.
        counted = min(report.at, now) if abs(now - report.at) <= SKEW_SECONDS else now
        for row in report.revisions:
            scaler = self._current.get(row.revision)
            if scaler:
                scaler.report(report.activator, row, now, report.period, counted)
        self._draining.heard(report, now)

    def _members(self) -> list[Member]:
        return [member for scaler in self.scalers.values() for member in scaler.members.values()]

    def _member(self, name: str) -> Member | None:
        return next((one.members[name] for one in self.scalers.values() if name in one.members), None)


def asleep(scaler: Scaler) -> bool:
    """Whether a Revision has no instance and gets one as soon as somebody asks for it."""
    may_wake = scaler.initial_reached and scaler.spec.reachable and not scaler.deleted and not scaler.gave_up
    return may_wake and not scaler.members


def resolved(revision: Json) -> bool:
    """Whether every container's image is pinned."""
    status = revision.get("status") or {}
    digests = {one["name"] for one in (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ()))
               if one.get("imageDigest")}  # fmt: skip
    spec = revision["spec"]
    return all(one["name"] in digests for one in (*spec["containers"], *spec.get("initContainers", ())))
