"""Keeps the Pods of a Revision up to date with what the autoscaler publishes about it; `object_sync` its other objects.

A Revision is synchronized when it, its instances or its scale changed; simultaneous changes are handled together.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import structlog

from api.controllers.engine.recorder import Recorder
from api.controllers.pods import knative_objects, pods
from api.controllers.pods.knative_objects import ActivatorAddress, RevisionView
from api.controllers.pods.object_sync import ObjectSync
from api.controllers.pods.pod_events import PodEvents
from api.controllers.pods.scale_events import ScaleEvents
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Emit
from knoll.concurrency.backoff import Backoff
from knoll.concurrency.pending_keys import PendingKeys
from knoll.messages.instances import FINALIZER, InstanceRow, RevisionInstances
from knoll.messages.scale import ScaleStatus
from knoll.store.informer import Informers, ObjectChange
from knoll.store.protocol import Store
from knoll.tables.follower import follow_table
from knoll.tables.protocol import Table
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.errors import AlreadyExistsError, ConflictError, KnollError, NotFoundError, StoreUnavailableError
from knoll.values.json import Json

log = structlog.get_logger()
T = TypeVar("T")

BATCH_SECONDS = 0.1
"""How long changes are collected before they are handled, in seconds."""
CONCURRENCY = 16
"""Revisions that are synchronized concurrently."""


class PodSync:
    """Synchronizes all Revisions while this process leads; `run` ends when it is cancelled.

    Its many attributes are the three sources of changes (instances, scale and Pods), each with its last state.
    """

    def __init__(
        self,
        store: Store,
        informers: Informers,
        instances: Table[RevisionInstances],
        scale: Table[ScaleStatus],
        gateway: ActivatorAddress,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            informers: run by the caller; Revisions, Pods and `knative_objects.KINDS` must be among them.
            clock: returns epoch seconds.
        """
        self._store, self._informers, self._clock = store, informers, clock
        self._tables = (instances, scale)
        self._recorder = Recorder(store, clock)
        self._scale_events = ScaleEvents()
        self._instances: dict[str, RevisionInstances] = {}
        self._scale: dict[str, ScaleStatus] = {}
        self._pods: defaultdict[str, set[str]] = defaultdict(set)
        """By Revision, the names of its Pods in the store."""
        self._pod_events = PodEvents()
        self._pending = PendingKeys[str](BATCH_SECONDS)
        self._objects = ObjectSync(store, informers, gateway, self._view, clock)

    async def run(self) -> None:
        await self._informers.synced()
        instances, scale = self._tables
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recorder.run())
            tasks.create_task(self._objects.run())
            ready = (asyncio.Event(), asyncio.Event())
            tasks.create_task(follow_table(instances, self._instances, self._pending.mark, ready[0]))
            tasks.create_task(follow_table(scale, self._scale, self._pending.mark, ready[1]))
            for event in ready:
                await event.wait()
            for key, status in self._scale.items():
                self._scale_events.mark_reported(key, status, self._clock())
            self._informers[kinds.POD.id].subscribe(self._pod_changed)
            for kind in knative_objects.KINDS:
                self._informers[kind.id].subscribe(self._object_changed, existing=False)
            self._informers[kinds.REVISION.id].subscribe(self._revision_changed)
            await self._work()

    # Changes

    def _pod_changed(self, notice: ObjectChange) -> None:
        body = notice.new or notice.old
        assert body is not None
        revision = objects.labels(body).get(well_known.REVISION)
        if revision is None:
            return
        key = f"{body['metadata']['namespace']}/{revision}"
        if notice.new is None:
            self._pods[key].discard(body["metadata"]["name"])
            if not self._pods[key]:
                del self._pods[key]
        else:
            self._pods[key].add(body["metadata"]["name"])
        if notice.new is None or notice.old is None or objects.deleting(notice.new):
            self._pending.mark(key)

    def _revision_changed(self, notice: ObjectChange) -> None:
        if not (notice.old and notice.new) or pods.read_of_revision(notice.old) != pods.read_of_revision(notice.new):
            self._pending.mark(notice.key)

    def _object_changed(self, notice: ObjectChange) -> None:
        """An object that was deleted while its Revision exists is created again."""
        owner = objects.controller_of(notice.old) if notice.new is None and notice.old else None
        if notice.old and owner and owner["kind"] == kinds.REVISION.kind:
            self._pending.mark(f"{notice.old['metadata']['namespace']}/{owner['name']}")

    # Synchronization

    async def _work(self) -> None:
        backoff = Backoff()
        while True:
            due = await self._pending.batch()
            for start in range(0, len(due), CONCURRENCY):
                try:
                    await asyncio.gather(*(self._sync(key) for key in due[start : start + CONCURRENCY]))
                    backoff.reset()
                except StoreUnavailableError as error:
                    log.warning("pods not updated", error=str(error))
                    self._pending.mark(*due[start:])
                    await backoff.wait()
                    break
                # A long list must not block the other tasks of this process.
                await asyncio.sleep(0)

    async def _sync(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        revision = self._informers[kinds.REVISION.id].peek(namespace, name)
        if revision is not None and objects.deleting(revision):
            revision = None
        try:
            await self._sync_pods(key, namespace, revision)
            if revision is None:
                self._scale_events.forget(key)
            else:
                self._emit_scale(key, revision)
                await self._objects.changed(key)
        except StoreUnavailableError:
            raise
        except (ConflictError, AlreadyExistsError, NotFoundError):
            # The informers are behind the store, and will deliver the newer objects in a moment.
            self._pending.mark(key)
        except KnollError as error:
            log.error("revision not synchronized", revision=key, error=str(error))

    def _emit_scale(self, key: str, revision: Json) -> None:
        status = self._scale.get(key)
        if status is not None and status.uid == revision["metadata"]["uid"]:
            message = self._scale_events.next_message(key, status, self._clock())
            if message:
                self._recorder.emit(Emit(revision, "Normal", "Scaled", message))

    def _view(self, key: str) -> RevisionView | None:
        """A Revision with its instances and scale; None if it does not exist or is being deleted."""
        revision = self._informers[kinds.REVISION.id].peek(*key.split("/"))
        if revision is None or objects.deleting(revision):
            return None
        uid, scale = revision["metadata"]["uid"], self._scale.get(key)
        same = scale is not None and scale.uid == uid
        return RevisionView(revision, list(self._rows(key, uid).values()), scale if same else None)

    def _rows(self, key: str, uid: str | None) -> dict[str, InstanceRow]:
        entry = self._instances.get(key)
        if entry is None or (uid is not None and entry.uid != uid):
            return {}
        return {row.name: row for row in entry.instances}

    async def _sync_pods(self, key: str, namespace: str, revision: Json | None) -> None:
        rows = self._rows(key, None)
        ours = self._rows(key, revision["metadata"]["uid"]) if revision else {}
        for name in sorted(rows.keys() | self._pods.get(key, set())):
            row, before = rows.get(name), self._informers[kinds.POD.id].peek(namespace, name)
            if row is None:
                self._pod_events.forget(namespace, name)
                if before is not None:
                    await self._delete(before)
            elif before is not None:
                await self._update(row, before, revision)
            elif revision is not None and name in ours and row.stage != "draining":
                pod = pods.pod(revision, row, None, self._clock())
                created = await self._store.create(kinds.POD.id, objects.with_identity(pod, row.created))
                self._pod_events.begin(namespace, name)
                self._emit_unschedulable(None, created, row)
                self._emit_events(created, revision, row)

    def _emit_unschedulable(self, before: Json | None, pod: Json, row: InstanceRow) -> None:
        """Emit an Event when a Pod becomes unschedulable, as Kubernetes' scheduler does."""
        if pods.is_unschedulable(pod) and not (before and pods.is_unschedulable(before)):
            message = next((container.message for container in row.containers if container.message), "")
            self._recorder.emit(Emit(pod, "Warning", "FailedScheduling", message))

    def _emit_events(self, pod: Json, revision: Json, row: InstanceRow) -> None:
        """Emit the events of an instance for its Pod; warnings also for its Revision, where users look first."""
        for event in self._pod_events.new_events(pod["metadata"]["namespace"], row):
            self._recorder.emit(Emit(pod, event.type, event.reason, event.message, event.count))
            if event.type == "Warning":
                self._recorder.emit(Emit(revision, event.type, event.reason, event.message, event.count))

    async def _update(self, row: InstanceRow, before: Json, revision: Json | None) -> None:
        meta = before["metadata"]
        if revision is not None and objects.is_controlled_by(before, revision):
            after = pods.pod(revision, row, before, self._clock())
            if after != before:
                self._emit_unschedulable(before, after, row)
                before = await self._store.update(kinds.POD.id, after, before=before)
            self._emit_events(before, revision, row)
        if row.stage == "draining" and not objects.deleting(before):
            await self._store.delete(kinds.POD.id, meta["namespace"], meta["name"], uid=meta["uid"])

    async def _delete(self, pod: Json) -> None:
        """Delete the Pod of a removed instance."""
        meta = pod["metadata"]
        if FINALIZER in (meta.get("finalizers") or ()):
            finalizers = [finalizer for finalizer in meta["finalizers"] if finalizer != FINALIZER]
            await self._store.update(kinds.POD.id, objects.changed(pod, finalizers=finalizers), before=pod)
        if not objects.deleting(pod):
            await self._store.delete(kinds.POD.id, meta["namespace"], meta["name"], uid=meta["uid"])
