"""Follows Revisions and the configuration: adds, changes and deletes scalers."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from autoscaler.leader.registry import RevisionRegistry
from autoscaler.leader.scaling_queue import ScalingQueue
from autoscaler.revisions.revision_scaler import RevisionScaler, ScalerDeps
from autoscaler.spec.compressed_revision import CompressedRevision
from autoscaler.spec.revision_catalog import RevisionCatalog
from knoll.concurrency.backoff import until_available
from knoll.messages.scale import ScaleStatus
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import scaling_spec
from knoll.store.config_watcher import ConfigWatcher
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import NotFoundError
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

Spawn = Callable[[Coroutine[Any, Any, None]], object]

CONFIGURATION = (SYSTEM_NAMESPACE, "config-autoscaler")
"""Namespace and name of a ConfigMap that every platform has since its first start."""


class RevisionWatch:
    """Keeps the registry in step with the catalog of Revisions."""

    def __init__(
        self,
        store: Store,
        config: ConfigWatcher,
        catalog: RevisionCatalog,
        registry: RevisionRegistry,
        queue: ScalingQueue,
        deps: ScalerDeps,
        spawn: Spawn,
    ) -> None:
        """
        Args:
            spawn: runs a coroutine while this process leads.

        One parameter more than the style allows.
        """
        self._store, self._config, self._catalog, self._registry = store, config, catalog, registry
        self._queue, self._deps, self._spawn = queue, deps, spawn
        self._configured_once = False
        self._before: Mapping[str, ScaleStatus] = {}

    def begin(self, before: Mapping[str, ScaleStatus]) -> Callable[[], None]:
        """Add a scaler for each Revision, and follow changes from now on.

        Args:
            before: what an earlier leader published, by uid.

        Returns: a function that stops following.
        """
        self._before = before
        return self._catalog.subscribe(self)

    def note_configuration(self, *, exists: bool) -> None:
        """Record that the platform's configuration exists, once it does."""
        self._configured_once = self._configured_once or exists

    def configuration_changed(self) -> None:
        """Apply a changed configuration to all Revisions."""
        for scaler in self._registry.by_uid.values():
            revision = scaler.revision
            scaler.change(scaler.compressed, scaling_spec(revision, self._config.current))
            self._queue.mark(scaler.key)

    def sources_changed(self, uid: str) -> None:
        """An object changed that a Revision's containers refer to."""
        if scaler := self._registry.by_uid.get(uid):
            scaler.sources_changed()
            self._queue.mark(scaler.key)

    def revision_put(self, revision: Revision, compressed: CompressedRevision) -> None:
        """See `CatalogSubscriber`."""
        spec = scaling_spec(revision, self._config.current)
        scaler = self._registry.by_uid.get(revision.metadata.uid)
        if scaler is None:
            before = self._before.get(revision.metadata.uid)
            scaler = RevisionScaler(revision, spec, self._deps, before=before, compressed=compressed)
            self._registry.add(scaler)
        elif revision.metadata.annotations == scaler.revision.metadata.annotations and spec == scaler.spec:
            return
        else:
            scaler.change(compressed, spec)
        self._queue.mark(scaler.key)

    def revision_deleted(self, uid: str, *, vanished: bool) -> None:
        """See `CatalogSubscriber`."""
        scaler = self._registry.by_uid.get(uid)
        if scaler and not scaler.deleted:
            if vanished:
                self._spawn(self._vanished(scaler))
            else:
                self._delete(scaler)

    def _delete(self, scaler: RevisionScaler) -> None:
        scaler.deleted = True
        self._queue.mark(scaler.key)

    async def _vanished(self, scaler: RevisionScaler) -> None:
        """A Revision vanished: it was deleted, or the store lost all objects, which may be restored."""
        if self._configured_once and await until_available(self._has_lost_its_objects):
            log.warning("store lost its objects, keeping instances for a while", revision=scaler.key)
            await self._catalog.wait_for_objects()
            if self._catalog.exists(scaler.key, scaler.uid):
                return
        self._delete(scaler)

    async def _has_lost_its_objects(self) -> bool:
        """Return whether even the platform's configuration is gone, which nothing deletes."""
        try:
            await self._store.get(kinds.CONFIG_MAP.id, *CONFIGURATION)
        except NotFoundError:
            return True
        return False
