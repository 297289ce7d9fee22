"""The Revisions whose instances can be started, parsed once for all parts of the process."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from autoscaler.spec.compressed_revision import CompressedRevision
from knoll.resources.admission.parsing import parse
from knoll.resources.models.revision import Revision
from knoll.store.informer import Informer, ObjectChange
from knoll.values.errors import InvalidResourceError
from knoll.values.json import Json

log = structlog.get_logger()

EMPTY_SECONDS = 30.0
"""How long instances are kept when the store has lost its objects: they may be restored."""


class CatalogSubscriber(Protocol):
    """Called when Revisions change."""

    def revision_put(self, revision: Revision, compressed: CompressedRevision) -> None:
        """A Revision is new, or its metadata has changed."""
        ...

    def revision_deleted(self, uid: str, *, vanished: bool) -> None:
        """A Revision was deleted, or is being deleted.

        Args:
            vanished: it is no longer in the store: its deletion has ended, or the store has lost its objects.
        """
        ...


class RevisionCatalog:
    """Revisions whose images are resolved, by uid; kept up to date by an informer that the caller runs.

    A deleted Revision is kept until `forget`: instances of it may still end.
    """

    def __init__(self, informer: Informer) -> None:
        self._informer = informer
        self._kept: dict[str, CompressedRevision] = {}
        self._deleted: set[str] = set()
        self._subscribers: list[CatalogSubscriber] = []
        informer.subscribe(self._changed)

    def subscribe(self, subscriber: CatalogSubscriber, *, existing: bool = True) -> Callable[[], None]:
        """Call the subscriber after each change from now on.

        Args:
            existing: call it at once with each Revision that exists.

        Returns: a function that ends the subscription.
        """
        for uid, compressed in list(self._kept.items()) if existing else ():
            if uid not in self._deleted:
                subscriber.revision_put(compressed.revision(), compressed)
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def get(self, uid: str) -> CompressedRevision | None:
        """Return a Revision, also a deleted one until `forget`; None if there is none."""
        return self._kept.get(uid)

    def current(self, uid: str) -> CompressedRevision | None:
        """Return a Revision that is not deleted; None otherwise."""
        return None if uid in self._deleted else self._kept.get(uid)

    def forget(self, uid: str) -> None:
        """Forget a deleted Revision: no instance of it is left."""
        if uid in self._deleted:
            self._deleted.discard(uid)
            self._kept.pop(uid, None)

    def exists(self, revision: str, uid: str) -> bool:
        """Return whether the store has a Revision, `namespace/name`, with that uid."""
        namespace, _, name = revision.partition("/")
        return self._informer.uid(namespace, name) == uid

    def is_empty(self) -> bool:
        """Return whether the store has no Revision at all, which probably means that it has lost its objects."""
        return not len(self._informer)

    async def wait_for_objects(self) -> None:
        """Wait for a while: objects that the store has lost may be restored."""
        await asyncio.sleep(EMPTY_SECONDS)

    def _changed(self, notice: ObjectChange) -> None:
        if notice.new is None or "deletionTimestamp" in notice.new["metadata"]:
            body = notice.new or notice.old
            assert body is not None
            self._delete(body["metadata"]["uid"], vanished=notice.new is None)
        elif is_resolved(notice.new):
            uid = notice.new["metadata"]["uid"]
            if notice.old is not None and is_same(notice.old, notice.new) and self.current(uid):
                return
            try:
                revision, _ = parse(Revision, notice.new)
            except InvalidResourceError as error:
                log.error("revision not readable", revision=notice.key, error=str(error))
                return
            self._kept[uid] = compressed = CompressedRevision(revision)
            self._deleted.discard(uid)
            for subscriber in tuple(self._subscribers):
                subscriber.revision_put(revision, compressed)

    def _delete(self, uid: str, *, vanished: bool) -> None:
        if uid not in self._kept:
            return
        self._deleted.add(uid)
        for subscriber in tuple(self._subscribers):
            subscriber.revision_deleted(uid, vanished=vanished)


def is_same(old: Json, new: Json) -> bool:
    """Return whether only fields have changed that this process does not read, such as conditions."""
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
