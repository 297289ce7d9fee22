"""Follows Revisions and the configuration: adds, changes and deletes scalers."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from autoscaler.instances.deps import InstanceDeps
from autoscaler.leader.registry import RevisionRegistry
from autoscaler.leader.scaling_queue import ScalingQueue
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.runtime.model import EngineVolume
from autoscaler.spec.volume_sync import VolumeSync
from knoll.concurrency.backoff import until_available
from knoll.messages.scale import ScaleStatus
from knoll.resources.admission.parsing import parse
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import scaling_spec
from knoll.store.config_watcher import ConfigWatcher
from knoll.store.informer import Informer, ObjectChange
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import InvalidResourceError, NotFoundError
from knoll.values.json import Json
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

Spawn = Callable[[Coroutine[Any, Any, None]], object]

CONFIGURATION = (SYSTEM_NAMESPACE, "config-autoscaler")
"""Namespace and name of a ConfigMap that every platform has since its first start."""
EMPTY_SECONDS = 30.0
"""How long instances are kept when the store has lost its objects: they may be restored."""


class RevisionWatch:
    """Keeps the registry in step with the store."""

    def __init__(
        self,
        store: Store,
        config: ConfigWatcher,
        registry: RevisionRegistry,
        queue: ScalingQueue,
        deps: InstanceDeps,
        spawn: Spawn,
        on_change: Callable[[RevisionScaler], None],
    ) -> None:
        """
        Args:
            spawn: runs a coroutine while this process leads.
            on_change: called with a Revision whose metadata changed.

        One parameter more than the style allows.
        """
        self._store, self._config, self._registry, self._queue = store, config, registry, queue
        self._deps, self._spawn, self._on_change = deps, spawn, on_change
        self.revisions = Informer(store, kinds.REVISION.id)
        self._configured_once = False
        self._volume_sync: VolumeSync | None = None
        self._before: Mapping[str, ScaleStatus] = {}

    def begin(self, before: Mapping[str, ScaleStatus], volume_sync: VolumeSync) -> None:
        """Add a scaler for each Revision, and follow changes from now on.

        Args:
            before: what an earlier leader published, by uid.
            volume_sync: gets each Revision as well.
        """
        self._before, self._volume_sync = before, volume_sync
        self.revisions.subscribe(self._revision_changed)

    def exists(self, revision: str, uid: str) -> bool:
        """Return whether the store has a Revision, `namespace/name`, with that uid."""
        namespace, _, name = revision.partition("/")
        return self.revisions.uid(namespace, name) == uid

    def is_empty(self) -> bool:
        """Return whether the store has no Revision at all: it has probably lost its objects."""
        return not len(self.revisions)

    async def wait_for_objects(self) -> None:
        """Wait for a while: objects that the store has lost may be restored."""
        await asyncio.sleep(EMPTY_SECONDS)

    def owns(self, volume: EngineVolume) -> bool:
        """Return whether the owner of a volume of a Revision or an instance exists."""
        of_revision = volume.owner in self._registry.by_uid or self.exists(volume.about, volume.owner)
        return of_revision or self._registry.instance(volume.owner) is not None

    def note_configuration(self, *, exists: bool) -> None:
        """Record that the platform's configuration exists, once it does."""
        self._configured_once = self._configured_once or exists

    def configuration_changed(self) -> None:
        """Apply a changed configuration to all Revisions."""
        for scaler in self._registry.by_uid.values():
            revision = scaler.revision
            scaler.change(revision, scaling_spec(revision, self._config.current))
            self._queue.mark(scaler.key)

    def sources_changed(self, uid: str) -> None:
        """An object changed that a Revision's containers refer to."""
        scaler = self._registry.by_uid[uid]
        scaler.sources_changed()
        self._queue.mark(scaler.key)

    def _revision_changed(self, notice: ObjectChange) -> None:
        if notice.new is None or "deletionTimestamp" in notice.new["metadata"]:
            body = notice.new or notice.old
            assert body is not None
            scaler = self._registry.by_uid.get(body["metadata"]["uid"])
            if scaler and not scaler.deleted:
                if notice.new is None:
                    self._spawn(self._vanished(scaler))
                else:
                    self._delete(scaler)
        elif is_resolved(notice.new):
            if notice.old is not None and is_same(notice.old, notice.new) and self._has(notice.new):
                return
            try:
                revision, _ = parse(Revision, notice.new)
            except InvalidResourceError as error:
                log.error("revision not readable", revision=notice.key, error=str(error))
                return
            self._apply(revision)

    def _has(self, body: Json) -> bool:
        return body["metadata"]["uid"] in self._registry.by_uid

    def _apply(self, revision: Revision) -> None:
        assert self._volume_sync is not None
        spec = scaling_spec(revision, self._config.current)
        scaler = self._registry.by_uid.get(revision.metadata.uid)
        if scaler is None:
            scaler = RevisionScaler(revision, spec, self._deps, before=self._before.get(revision.metadata.uid))
            self._registry.add(scaler)
        elif revision.metadata.annotations == scaler.revision.metadata.annotations and spec == scaler.spec:
            return
        else:
            scaler.change(revision, spec)
            self._on_change(scaler)
        self._volume_sync.add(revision, scaler.compressed)
        self._queue.mark(scaler.key)

    def _delete(self, scaler: RevisionScaler) -> None:
        scaler.deleted = True
        self._queue.mark(scaler.key)

    async def _vanished(self, scaler: RevisionScaler) -> None:
        """A Revision vanished: it was deleted, or the store lost all objects, which may be restored."""
        if self._configured_once and await until_available(self._has_lost_its_objects):
            log.warning("store lost its objects, keeping instances for a while", revision=scaler.key)
            await self.wait_for_objects()
            if self.exists(scaler.key, scaler.uid):
                return
        self._delete(scaler)

    async def _has_lost_its_objects(self) -> bool:
        """Return whether even the platform's configuration is gone, which nothing deletes."""
        try:
            await self._store.get(kinds.CONFIG_MAP.id, *CONFIGURATION)
        except NotFoundError:
            return True
        return False


def is_same(old: Json, new: Json) -> bool:
    """Return whether only what this process does not read has changed: conditions and the like."""
    return _read_parts(old) == _read_parts(new)


def _read_parts(revision: Json) -> tuple[object, ...]:
    meta, status = revision["metadata"], revision.get("status") or {}
    return (
        *(meta.get(name) for name in ("uid", "generation", "labels", "annotations", "deletionTimestamp")),
        revision["spec"],
        *(status.get(name) for name in ("containerStatuses", "initContainerStatuses")),
    )


def is_resolved(revision: Json) -> bool:
    """Return whether the image of every container is resolved to a digest."""
    status = revision.get("status") or {}
    statuses = (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ()))
    resolved = {container["name"] for container in statuses if container.get("imageDigest")}
    spec = revision["spec"]
    return all(container["name"] in resolved for container in (*spec["containers"], *spec.get("initContainers", ())))
