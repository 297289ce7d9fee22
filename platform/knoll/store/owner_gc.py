"""Deletion along owner references, as in Kubernetes: background, foreground and orphan.

`decide` is pure; `OwnerGarbageCollector` calls it with objects from informers and carries out its actions. The API sets
the finalizers of a client's propagation policy (`foregroundDeletion`, `orphan`) before it deletes an object;
everything after that happens here.

Source: Kubernetes, pkg/controller/garbagecollector, `attemptToDeleteItem`, `attemptToOrphan`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.concurrency.pending_keys import PendingKeys
from knoll.store.informer import Informer, ObjectChange
from knoll.store.protocol import Store
from knoll.store.rules import owners_in
from knoll.values.errors import ConflictError, NotFoundError, StoreUnavailableError
from knoll.values.json import Json
from knoll.values.kinds import BY_ID, KINDS, Kind

log = structlog.get_logger()

FOREGROUND = "foregroundDeletion"
"""Finalizer of an object that is deleted after its dependents."""
ORPHAN = "orphan"
"""Finalizer of an object whose dependents are kept."""


@dataclass(frozen=True, slots=True)
class UpdateObject:
    """Replace the object with this, if it has not changed since."""

    body: Json


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Delete the object; with `foreground`, its finalizer is added first."""

    body: Json
    foreground: bool = False


GcAction = UpdateObject | DeleteObject


def decide(body: Json, owners: Mapping[str, Json], dependents: Sequence[Json]) -> list[GcAction]:
    """Decide the actions for one object.

    Args:
        body: the object.
        owners: its existing owners, by uid.
        dependents: objects that have it as an owner.

    Returns:
        Actions on it or its dependents; empty if there is nothing to do at the moment.
    """
    meta = body["metadata"]
    finalizers = meta.get("finalizers") or []
    if meta.get("deletionTimestamp"):
        if ORPHAN in finalizers:
            return _orphan(body, dependents)
        if FOREGROUND in finalizers:
            return _finish(body, dependents)
        return []
    return _judge(body, owners, dependents)


def _judge(body: Json, owners: Mapping[str, Json], dependents: Sequence[Json]) -> list[GcAction]:
    references = body["metadata"].get("ownerReferences") or []
    if not references:
        return []
    solid = [ref for ref in references if ref["uid"] in owners and not deleting_foreground(owners[ref["uid"]])]
    if len(solid) == len(references):
        return []
    if solid:
        return [UpdateObject(_with_meta(body, ownerReferences=solid))]
    waited_for = any(ref["uid"] in owners for ref in references)
    if not waited_for or not dependents:
        return [DeleteObject(body)]
    # Owners in a cycle would wait for each other forever.
    circle = any(deleting_foreground(dependent) for dependent in dependents)
    if circle and any(ref.get("blockOwnerDeletion") for ref in references):
        return [
            UpdateObject(_with_meta(body, ownerReferences=[{**ref, "blockOwnerDeletion": False} for ref in references]))
        ]
    return [DeleteObject(body, foreground=True)]


def _finish(body: Json, dependents: Sequence[Json]) -> list[GcAction]:
    uid = body["metadata"]["uid"]
    if any(_blocks(dependent, uid) for dependent in dependents):
        return []
    return [UpdateObject(_without_finalizer(body, FOREGROUND))]


def _orphan(body: Json, dependents: Sequence[Json]) -> list[GcAction]:
    uid = body["metadata"]["uid"]
    if not dependents:
        return [UpdateObject(_without_finalizer(body, ORPHAN))]
    return [
        UpdateObject(_with_meta(child, ownerReferences=[ref for ref in _references(child) if ref["uid"] != uid]))
        for child in dependents
    ]


def deleting_foreground(body: Json) -> bool:
    """Whether an object is waiting for its dependents to be deleted."""
    meta = body["metadata"]
    return bool(meta.get("deletionTimestamp")) and FOREGROUND in (meta.get("finalizers") or [])


def _blocks(dependent: Json, uid: str) -> bool:
    return any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in _references(dependent))


def _references(body: Json) -> list[Json]:
    return body["metadata"].get("ownerReferences") or []


def _with_meta(body: Json, **changes: object) -> Json:
    meta = {name: value for name, value in {**body["metadata"], **changes}.items() if value != []}
    return {**body, "metadata": meta}


def _without_finalizer(body: Json, finalizer: str) -> Json:
    return _with_meta(body, finalizers=[name for name in body["metadata"]["finalizers"] if name != finalizer])


_KINDS = {(kind.group, kind.kind): kind for kind in KINDS}
_Key = tuple[str, str]


class OwnerGarbageCollector:
    """The control loop. Only one may run per platform: run it under a lease."""

    def __init__(self, store: Store, informers: Sequence[Informer]) -> None:
        """
        Args:
            informers: of every kind that can own or be owned; run by the caller.
        """
        self._store = store
        self._informers = {informer.resource: informer for informer in informers}
        self._pending = PendingKeys[_Key]()

    async def run(self) -> None:
        """Collect until cancelled."""
        for informer in self._informers.values():
            await informer.synced()
        ends = [informer.subscribe(self._note, existing=False) for informer in self._informers.values()]
        for informer in self._informers.values():
            for key in informer.keys():  # noqa: SIM118
                self._add(informer.resource, key)
        backoff = Backoff()
        try:
            while True:
                place = await self._pending.next()
                try:
                    await self._look_at(*place)
                    backoff.reset()
                except (ConflictError, NotFoundError):
                    # The cache is stale: the pending event will update it; this is only a safeguard.
                    self._add(*place)
                    await backoff.wait()
                except StoreUnavailableError as error:
                    log.warning("garbage collection interrupted", error=str(error))
                    self._add(*place)
                    await backoff.wait()
        finally:
            for end in ends:
                end()

    def _add(self, resource: str, key: str) -> None:
        self._pending.mark((resource, key))

    def _note(self, notice: ObjectChange) -> None:
        body = notice.new or notice.old
        assert body is not None
        if notice.new is not None and not self._stays(notice.new):
            self._add(notice.resource, notice.key)
        if notice.new is None or notice.new["metadata"].get("deletionTimestamp"):
            for resource, key in self._dependents(body):
                self._add(resource, key)
        owners = owners_in(notice.old) if notice.old else frozenset()
        if notice.old is not None and (notice.new is None or _references(notice.old) != _references(notice.new)):
            for ref in _references(notice.old):
                if ref["uid"] in owners and (place := self._place(ref, body)):
                    self._add(*place)

    def _stays(self, body: Json) -> bool:
        """Whether `decide` would do nothing for an object: true for nearly all changes, and cheap to check.

        When the deletion of an owner begins or ends, its dependents are checked again.
        """
        return not body["metadata"].get("deletionTimestamp") and all(
            self._is_held(ref, body) for ref in _references(body)
        )

    def _is_held(self, ref: Json, dependent: Json) -> bool:
        place = self._place(ref, dependent)
        if place is None:
            return True
        resource, key = place
        namespace, _, name = key.partition("/")
        informer = self._informers.get(resource)
        return informer is not None and informer.has(namespace, name, ref["uid"])

    async def _look_at(self, resource: str, key: str) -> None:
        namespace, _, name = key.partition("/")
        body = self._informers[resource].get(namespace, name)
        if body is None:
            return
        owners = await self._owners(body)
        if owners is None:
            return
        children = [(kind, child) for kind, at in self._dependents(body) if (child := self._at(kind, at)) is not None]
        for action in decide(body, owners, [child for _, child in children]):
            target = next((kind for kind, child in children if _same(child, action.body)), resource)
            await self._do(target, action)

    async def _do(self, resource: str, action: GcAction) -> None:
        meta = action.body["metadata"]
        log.info(
            "object collected",
            resource=resource,
            name=meta["name"],
            action="update" if isinstance(action, UpdateObject) else "delete",
        )
        if isinstance(action, UpdateObject):
            await self._store.update(resource, action.body)
            return
        body = action.body
        finalizers = meta.get("finalizers") or []
        if action.foreground and FOREGROUND not in finalizers:
            body = await self._store.update(resource, _with_meta(body, finalizers=[*finalizers, FOREGROUND]))
        meta = body["metadata"]
        await self._store.delete(
            resource, meta.get("namespace") or "", meta["name"], uid=meta["uid"], version=meta["resourceVersion"]
        )

    async def _owners(self, body: Json) -> dict[str, Json] | None:
        """Return the owners that exist; None if one has an unknown kind, so that its existence is unknown."""
        owners = {}
        for ref in _references(body):
            place = self._place(ref, body)
            if place is None:
                return None
            owner = self._at(*place)
            if owner is None or owner["metadata"].get("uid") != ref["uid"]:
                # Only the store knows for certain that an owner does not exist.
                owner = await self._read(*place)
            if owner is not None and owner["metadata"].get("uid") == ref["uid"]:
                owners[ref["uid"]] = owner
        return owners

    async def _read(self, resource: str, key: str) -> Json | None:
        namespace, _, name = key.partition("/")
        try:
            return await self._store.get(resource, namespace, name)
        except NotFoundError:
            return None

    def _at(self, resource: str, key: str) -> Json | None:
        namespace, _, name = key.partition("/")
        informer = self._informers.get(resource)
        return None if informer is None else informer.get(namespace, name)

    def _dependents(self, body: Json) -> list[_Key]:
        """Objects that have it as an owner: in its namespace, or in all namespaces if it is cluster-scoped."""
        uid, namespace = body["metadata"].get("uid") or "", body["metadata"].get("namespace")
        if not uid:
            return []
        informers = self._informers.values()
        dependents = [(informer.resource, key) for informer in informers for key in informer.keys(owner=uid)]
        return [(resource, key) for resource, key in dependents if not namespace or key.startswith(f"{namespace}/")]

    def _place(self, ref: Json, dependent: Json) -> _Key | None:
        group = ref["apiVersion"].rpartition("/")[0]
        kind: Kind | None = _KINDS.get((group, ref["kind"]))
        if kind is None:
            return None
        namespace = dependent["metadata"].get("namespace") or "" if BY_ID[kind.id].namespaced else ""
        return kind.id, f"{namespace}/{ref['name']}"


def _same(first: Json, second: Json) -> bool:
    return bool(first["metadata"]["uid"] == second["metadata"]["uid"])
