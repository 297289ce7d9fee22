"""What follows a reconciliation that failed: read what changed, say so in the status, and try again later."""

from collections.abc import Callable

import structlog

from api.controllers.engine.cache import Cache, CacheChange
from api.controllers.engine.executor import Executor
from api.controllers.engine.work_queue import WorkQueue
from api.controllers.reconciler import failure, objects
from api.controllers.reconciler.actions import Action, Create, Delete, ObjectKey, Update, UpdateStatus
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import KnollError, NotFoundError

log = structlog.get_logger()


class Failures:
    """Queues again what failed."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        queue: WorkQueue,
        executor: Executor,
        seen: Callable[[CacheChange | None], None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            seen: called with each change that a read made to the cache.
            clock: returns epoch seconds.
        """
        self._store, self._cache, self._queue, self._executor = store, cache, queue, executor
        self._seen, self._clock = seen, clock
        self._conflicted: set[ObjectKey] = set()

    def none(self, key: ObjectKey) -> None:
        """Called when an object was reconciled successfully."""
        self._conflicted.discard(key)
        self._queue.succeeded(key)

    async def conflicted(self, key: ObjectKey, action: Action, error: KnollError) -> None:
        """Read an object that another process changed; reconcile again, at once the first time, then with back-off."""
        log.debug("object changed by another writer", key=key, error=str(error))
        try:
            await self._refresh(_object_of(action))
        except KnollError as failed:
            await self.failed(key, failed)
            return
        if key in self._conflicted:
            self._queue.retry(key)
        else:
            self._conflicted.add(key)
            self._queue.add(key)

    async def _refresh(self, key: ObjectKey | None) -> None:
        if key is None:
            return
        # Read before the request: until the response arrives, the cache may receive another object of that name.
        cached = self._cache.get(*key)
        try:
            self._seen(self._cache.put(key[0], await self._store.get(*key), force=True))
        except NotFoundError:
            if cached:
                self._seen(self._cache.remove(*key, int(cached["metadata"]["resourceVersion"])))

    async def failed(self, key: ObjectKey, error: KnollError, *, is_new: bool = False) -> None:
        """Retry later, and say so in the status.

        Args: is_new: the object was created with a status that expected success.
        """
        seconds = self._queue.retry(key)
        log.warning("object not reconciled", key="/".join(key), error=str(error), retry_in=round(seconds, 3))
        body = self._cache.get(*key)
        unobserved = failure.unobserved(kinds.BY_ID[key[0]], body, self._clock(), is_new=is_new) if body else None
        if body and unobserved:
            try:
                await self._executor.carry_out(UpdateStatus(key[0], body, unobserved), (key,))
            except KnollError:
                # The first error is logged above; the failure to write the status is a consequence of it.
                return


def _object_of(action: Action) -> ObjectKey | None:
    match action:
        case Create(resource, body) | Update(resource, _, body) | UpdateStatus(resource, _, body):
            return objects.key_of(resource, body)
        case Delete(resource, namespace, name, _):
            return (resource, namespace, name)
    return None
