"""The objects that a node follows: Revisions, objects that their containers refer to, and the configuration."""

from autoscaler.spec.revision_catalog import RevisionCatalog
from knoll.store.config_watcher import ConfigWatcher
from knoll.store.informer import Informer, Informers
from knoll.store.protocol import Store
from knoll.values import kinds


class FollowedObjects:
    """Informers of one process, which the node and the leader share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.namespaces = Informer(store, kinds.NAMESPACE.id)
        sources = (kinds.CONFIG_MAP, kinds.SECRET, kinds.VOLUME_CLAIM, kinds.SERVICE_ACCOUNT)
        self.sources = {kind.id: Informer(store, kind.id) for kind in sources}
        """By resource id: objects that containers may refer to."""
        self.config = ConfigWatcher(self.sources[kinds.CONFIG_MAP.id])
        revisions = Informer(store, kinds.REVISION.id)
        self.catalog = RevisionCatalog(revisions)
        self._informers = Informers(store, [revisions, self.namespaces, *self.sources.values()])

    async def synced(self) -> None:
        """Wait until everything was read once."""
        await self._informers.synced()
        await self.config.synced()

    async def run(self) -> None:
        """Keep the copies up to date until cancelled."""
        await self._informers.run()
