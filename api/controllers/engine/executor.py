"""Carries out the actions of reconcilers, and applies their results to the cluster state at once. Decides nothing."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from api.controllers.engine.cache import CacheChange
from api.controllers.engine.cluster_state import ClusterState, note_shown
from api.controllers.engine.tables import Outputs
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import (  # fmt: skip
    Action,
    Create,
    Delete,
    Emit,
    Enqueue,
    Forget,
    ObjectKey,
    PutRoute,
    RemoveRoute,
    ResolveImages,
    Update,
    UpdateStatus,
)
from knoll.messages import builds
from knoll.store.protocol import ObjectWrite
from knoll.tables.protocol import Table
from knoll.values import kinds
from knoll.values.errors import KnollError, NotFoundError
from knoll.values.json import Json


class Executor:
    """Writes to the store, the routing table and the job queue."""

    def __init__(
        self,
        outputs: Outputs,
        state: ClusterState,
        emit: Callable[[Emit], None],
        seen: Callable[[CacheChange | None, Collection[ObjectKey]], None],
        clock: Callable[[], float],
    ) -> None:
        """Make an executor.

        Args:
            outputs: what the actions write to.
            state: updated with the result of each write.
            emit: receives Events; must not block.
            seen: called with each change that a write made to the cache, and the objects whose reconciliation wrote.
            clock: returns epoch seconds.
        """
        tables = outputs.tables
        self._store = outputs.store
        self._queue = outputs.queue
        self._routing = tables.routing
        self._unresolved = tables.unresolved
        self._answers: dict[str, Table[Any]] = {builds.RESOLUTIONS: tables.resolutions, builds.BUILDS: tables.builds}
        self._state = state
        self._emit = emit
        self._seen = seen
        self._clock = clock
        self._writing: dict[ObjectKey, tuple[Collection[ObjectKey], Json]] = {}

    def writers_of(self, key: ObjectKey, body: Json) -> Collection[ObjectKey]:
        """The objects whose reconciliation is writing this body now; empty if another process wrote it.

        The event of a write may arrive before its response.
        """
        by, written = self._writing.get(key, ((), None))
        if written is None or {**body, "metadata": None} != {**written, "metadata": None}:
            return ()
        return by if _unversioned(body) == _unversioned(written) else ()

    async def carry_out(self, action: Action, by: Collection[ObjectKey]) -> None:
        """Carry out one action.

        Args: by: the objects whose reconciliation returned it, or is part of it.

        Raises: ConflictError, AlreadyExistsError, NotFoundError, StoreUnavailableError.
        """
        match action:
            case Create(resource, body):
                body = self._identified(body)
                with self._written(resource, body, by):
                    self._take(resource, await self._store.create(resource, body), by)
            case Update(resource, before, body):
                body = objects.with_generation(before, body)
                with self._written(resource, body, by):
                    self._take(resource, await self._store.update(resource, body, before=before), by)
            case UpdateStatus(resource, before, body):
                with self._written(resource, body, by):
                    self._take(resource, await self._store.update(resource, body, before=before), by)
            case Delete(resource, namespace, name, uid):
                await self._delete(resource, namespace, name, uid)
            case PutRoute(path, entry):
                self._state.routing[path] = (await self._routing.put(path, entry), entry)
            case RemoveRoute(path):
                await self._routing.remove(path)
                self._state.routing.pop(path, None)
                self._state.acknowledged.pop(path, None)
            case Forget(table, path):
                await self._answers[table].remove(path)
            case ResolveImages(namespace, name, uid):
                await self._unresolved.put(uid, builds.Unresolved(namespace, name))
                self._state.asked[uid] = self._clock()
            case Enqueue(namespace, name, uid):
                await self._queue.build(namespace, name, uid)
                self._state.asked[uid] = self._clock()
            case Emit():
                self._emit(action)

    async def create_all(self, creates: Sequence[tuple[Create, Collection[ObjectKey]]]) -> list[KnollError | None]:
        """Create objects in one round trip, in order; a failure does not stop the others.

        Args: creates: actions, and the objects whose reconciliation they are part of.

        Returns: the error of each, if it failed.
        """
        if len(creates) == 1:
            try:
                await self.carry_out(*creates[0])
            except KnollError as error:
                return [error]
            return [None]
        writes = [ObjectWrite(create.resource, self._identified(create.body)) for create, _ in creates]
        with contextlib.ExitStack() as stack:
            for write, (_, by) in zip(writes, creates, strict=True):
                stack.enter_context(self._written(write.resource, write.body, by))
            results = await self._store.write_all(writes)
            for write, result, (_, by) in zip(writes, results, creates, strict=True):
                if not isinstance(result, KnollError):
                    self._take(write.resource, result, by)
        return [result if isinstance(result, KnollError) else None for result in results]

    def _identified(self, body: Json) -> Json:
        return body if body["metadata"].get("uid") else objects.with_identity(body, self._clock())

    @contextlib.contextmanager
    def _written(self, resource: str, body: Json, by: Collection[ObjectKey]) -> Iterator[None]:
        key = objects.key_of(resource, body)
        self._writing[key] = (by, body)
        try:
            yield
        finally:
            self._writing.pop(key, None)

    def _take(self, resource: str, body: Json, by: Collection[ObjectKey]) -> None:
        if resource == kinds.SERVICE.id:
            note_shown(body, self._state, self._clock())
        # An object that is being deleted may be gone already: the watch reports when.
        if not objects.deleting(body):
            self._seen(self._state.cache.put(resource, body), by)

    async def _delete(self, resource: str, namespace: str, name: str, uid: str) -> None:
        try:
            await self._store.delete(resource, namespace, name, uid=uid)
        except NotFoundError:
            return


def _unversioned(body: Json) -> Json:
    return {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
