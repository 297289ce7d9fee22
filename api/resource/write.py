"""Creates, replaces, patches and deletes objects: reads, decides in pure functions, writes with compare-and-set."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

import orjson

from api.auth import pod_tokens
from api.auth.identity import User
from api.patch import patches, server_side_apply, strategic
from api.resource import bootstrap
from api.resource.admission import Admission
from api.resource.disk_guard import DiskGuard
from api.resource.namespaces import CONTENTS
from api.resource.quotas import Quotas
from api.wire import bodies, metadata
from api.wire.metadata import Place
from api.wire.options import DeleteOptions, Propagation, WriteOptions
from api.wire.paths import ResourcePath
from knoll.store.owner_gc import FOREGROUND, ORPHAN
from knoll.store.protocol import Store
from knoll.values.errors import (
    AlreadyExistsError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from knoll.values.json import Json
from knoll.values.kinds import NAMESPACE
from knoll.values.timestamps import timestamp

P = ParamSpec("P")
T = TypeVar("T")

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

MAX_OBJECT_BYTES = 1_500_000
"""Limit of one stored object, as in etcd."""
_MAX_TRIES = 100
"""Attempts of a write without resourceVersion, which must not fail because of a conflict."""
_MAX_NAMES = 8
"""Attempts to generate a name that is not taken."""


@dataclass(slots=True)
class WriteResult:
    """The result of a write."""

    body: Json
    created: bool = False
    warnings: list[str] = field(default_factory=list)


class Writes:
    """All writes of clients."""

    def __init__(
        self,
        store: Store,
        admission: Admission,
        now: Callable[[], float] = time.time,
        *,
        disk_guard: DiskGuard | None = None,
    ) -> None:
        """Args: disk_guard: refuses objects while a disk is nearly full; None accepts all."""
        self._store = store
        self._disk_guard = disk_guard
        self._admission = admission
        self._now = now
        self._quotas = Quotas(store)

    async def create(
        self, target: ResourcePath, parsed: bodies.Parsed, options: WriteOptions, user: User
    ) -> WriteResult:
        """Raises: AlreadyExistsError, NotFoundError (no such namespace), and the errors of admission."""
        place = target.place
        body, warnings = await _offloaded(parsed.large, self._admission.decode, parsed, place, options)
        named = body["metadata"].get("name")
        await self._check_namespace(place)
        for attempt in range(_MAX_NAMES):
            suffix = metadata.suffix_from(secrets.randbits(64))
            admitted = await _offloaded(
                parsed.large, self._admission.create, body, place, user, uid=str(uuid.uuid4()), suffix=suffix
            )
            await pod_tokens.check(self._store, place, admitted, None, user)
            try:
                return WriteResult(await self._insert(place, admitted, options), True, warnings)
            except AlreadyExistsError:
                if named or attempt == _MAX_NAMES - 1:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _insert(self, place: Place, body: Json, options: WriteOptions) -> Json:
        _check_size(body)
        if self._disk_guard:
            self._disk_guard.check_object(place.kind, new=True)
        async with self._quotas.allowing(place, body):
            return await self._new(place, body, options)

    async def _new(self, place: Place, body: Json, options: WriteOptions) -> Json:
        if not options.dry_run:
            return await self._store.create(place.kind.id, body)
        name = body["metadata"]["name"]
        try:
            await self._store.get(place.kind.id, place.namespace, name)
        except NotFoundError:
            return body
        raise AlreadyExistsError(f'{place.kind.id} "{name}" already exists')

    async def _check_namespace(self, place: Place) -> None:
        if not place.kind.namespaced:
            return
        try:
            namespace = await self._store.get(NAMESPACE.id, "", place.namespace)
        except NotFoundError:
            raise NotFoundError(
                f'namespaces "{place.namespace}" not found: create it first '
                f"(kubectl create namespace {place.namespace})"
            ) from None
        if namespace["metadata"].get("deletionTimestamp"):
            raise ForbiddenError(
                f"unable to create new content in namespace {place.namespace} because it is being terminated"
            )

    async def replace(
        self, target: ResourcePath, parsed: bodies.Parsed, options: WriteOptions, user: User
    ) -> WriteResult:
        """PUT. A resourceVersion in the body must be the stored one; without it, any stored version is replaced.

        Raises: NotFoundError, ConflictError, and the errors of admission.
        """
        body, warnings = self._admission.decode(parsed, target.place, options, target.subresource)

        def change(old: Json) -> tuple[Json, list[str]]:
            return {**body, "metadata": dict(body["metadata"])}, warnings

        return await self._change(target, change, options, user)

    async def patch(
        self, target: ResourcePath, raw: bytes, content_type: str, options: WriteOptions, user: User
    ) -> WriteResult:
        """PATCH in the format of the content type.

        Raises:
            UnsupportedMediaTypeError: the kind does not support the format. NotFoundError, ConflictError (the patch has
            a resourceVersion), PatchError, and the errors of admission.
        """
        kind = bodies.media_type(content_type)
        if kind == APPLY:
            # kubectl sends JSON with this YAML type.
            parsed = (
                await asyncio.to_thread(bodies.parse, raw, "application/yaml")
                if len(raw) > bodies.LARGE
                else (bodies.parse(raw, "application/yaml"))
            )
            return await self._apply(target, parsed, options, user)
        apply = self._patcher(kind, raw, target)

        def change(old: Json) -> tuple[Json, list[str]]:
            shown = {**old, "apiVersion": target.place.api_version}
            patched = apply(shown)
            bodies.check_depth(patched)
            parsed = bodies.Parsed(patched)
            return self._admission.decode(parsed, target.place, options, target.subresource)

        return await self._change(target, change, options, user)

    @staticmethod
    def _patcher(kind: str, raw: bytes, target: ResourcePath) -> Callable[[Json], Any]:
        place = target.place
        core = place.kind.builtin
        if kind == MERGE:
            patch = bodies.parse_json(raw).value
            if not isinstance(patch, dict):
                raise BadRequestError("a merge patch must be a JSON object")
            return lambda old: patches.merge(old, patch)
        if kind == JSON_PATCH:
            operations = bodies.parse_json(raw).value
            return lambda old: patches.json_patch(old, operations)
        if kind == STRATEGIC and core:
            patch = bodies.parse_json(raw).value
            if not isinstance(patch, dict):
                raise BadRequestError("a strategic merge patch must be a JSON object")
            return lambda old: strategic.merge(old, patch, place.kind.kind)
        accepted = [JSON_PATCH, MERGE, *([STRATEGIC] if core else []), APPLY]
        raise UnsupportedMediaTypeError(
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
        )

    async def _apply(
        self, target: ResourcePath, parsed: bodies.Parsed, options: WriteOptions, user: User
    ) -> WriteResult:
        """Server-side apply; creates the object if it does not exist."""
        intent, warnings = self._admission.decode(parsed, target.place, options, target.subresource)
        server_side_apply.check_intent(intent)
        place = target.place
        stamp = timestamp(self._now())
        for _ in range(_MAX_TRIES):
            try:
                old = await self._store.get(place.kind.id, place.namespace, place.name)
            except NotFoundError:
                if target.subresource or intent["metadata"].get("uid") or intent["metadata"].get("resourceVersion"):
                    raise
                try:
                    return await self._apply_new(target, intent, warnings, options, user)
                except AlreadyExistsError:
                    continue
            metadata.same_object(intent["metadata"], old["metadata"], place)
            merged = server_side_apply.apply(
                old, intent, options.manager, options.force, place.api_version, target.subresource
            )

            def record(body: Json, merged: server_side_apply.Applied = merged) -> None:
                merged.record(body, stamp)

            try:
                return await self._commit(target, old, (merged.body, warnings), options, user, record)
            except PreconditionError:
                raise
            except ConflictError:
                if intent["metadata"].get("resourceVersion"):
                    raise
                continue
        raise _busy(place)

    async def _apply_new(
        self, target: ResourcePath, intent: Json, warnings: list[str], options: WriteOptions, user: User
    ) -> WriteResult:
        place = target.place
        await self._check_namespace(place)
        body = {**intent, "metadata": {**intent["metadata"], "name": place.name}}
        admitted = self._admission.create(body, place, user, uid=str(uuid.uuid4()), suffix="")
        await pod_tokens.check(self._store, place, admitted, None, user)
        server_side_apply.first(admitted, intent, options.manager, place.api_version, timestamp(self._now()))
        return WriteResult(await self._insert(place, admitted, options), True, warnings)

    async def _change(
        self,
        target: ResourcePath,
        change: Callable[[Json], tuple[Json, list[str]]],
        options: WriteOptions,
        user: User,
    ) -> WriteResult:
        """Read, change, write; repeat after a conflicting write unless the change has a resourceVersion."""
        place = target.place
        stamp = timestamp(self._now())
        for _ in range(_MAX_TRIES):
            old = await self._store.get(place.kind.id, place.namespace, place.name)
            changed = change(old)
            version = changed[0]["metadata"].get("resourceVersion")
            is_stale = isinstance(version, str) and version not in ("", old["metadata"]["resourceVersion"])
            if is_stale:
                raise _conflict(place)

            def record(body: Json, old: Json = old) -> None:
                server_side_apply.update(body, old, options.manager, place.api_version, target.subresource, stamp)

            try:
                return await self._commit(target, old, changed, options, user, record)
            except PreconditionError:
                raise
            except ConflictError:
                continue
        raise _busy(place)

    async def _commit(
        self,
        target: ResourcePath,
        old: Json,
        changed: tuple[Json, list[str]],
        options: WriteOptions,
        user: User,
        record: Callable[[Json], None],
    ) -> WriteResult:
        place = target.place
        body, warnings = changed
        if target.subresource == "status":
            admitted = self._admission.status(body, old, place)
        else:
            large = len(orjson.dumps(body)) > bodies.LARGE
            admitted = await _offloaded(large, self._admission.update, body, old, place, user)
            await pod_tokens.check(self._store, place, admitted, old, user)
        record(admitted)
        written = WriteResult(old, warnings=warnings)
        if metadata.same(admitted, old) and not server_side_apply.differs(admitted, old):
            return written
        admitted["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        _check_size(admitted)
        if self._disk_guard and not admitted["metadata"].get("deletionTimestamp"):
            self._disk_guard.check_object(place.kind, new=False)
        written.body = admitted if options.dry_run else await self._store.update(place.kind.id, admitted)
        return written

    async def delete(self, target: ResourcePath, options: DeleteOptions) -> Json:
        """Delete one object; returns its last state, with a deletionTimestamp while it has finalizers.

        Raises: NotFoundError, ConflictError (a precondition failed).
        """
        place = target.place
        resource = place.kind.id
        for _ in range(_MAX_TRIES):
            old = await self._store.get(resource, place.namespace, place.name)
            _preconditions(old, options, place)
            if place.kind is NAMESPACE and place.name in bootstrap.NAMESPACES:
                raise ForbiddenError(f'namespaces "{place.name}" is forbidden: this namespace may not be deleted')
            if options.dry_run:
                return old
            if not await self._add_finalizers(old, place, options.propagation):
                continue
            return await self._store.delete(
                resource, place.namespace, place.name, uid=old["metadata"]["uid"], version=options.version
            )
        raise _busy(place)

    async def delete_all(self, target: ResourcePath, listed: list[Json], options: DeleteOptions) -> list[Json]:
        """Delete those of the objects that still exist; returns their last states."""
        gone = []
        for body in listed:
            place = replace(
                target.place, name=body["metadata"]["name"], namespace=body["metadata"].get("namespace", "")
            )
            try:
                gone.append(await self.delete(ResourcePath(place), options))
            except NotFoundError:
                continue
        return gone

    async def _add_finalizers(self, old: Json, place: Place, propagation: Propagation) -> bool:
        """Add the finalizers that deletion needs; returns False after a conflicting write."""
        needed = []
        if place.kind is NAMESPACE:
            needed.append(CONTENTS)
        if propagation != "Background" and await self._store.owned_by(old["metadata"]["uid"]):
            needed.append(FOREGROUND if propagation == "Foreground" else ORPHAN)
        held = old["metadata"].get("finalizers") or []
        missing = [finalizer for finalizer in needed if finalizer not in held]
        if not missing or old["metadata"].get("deletionTimestamp"):
            return True
        old["metadata"]["finalizers"] = [*held, *missing]
        if place.kind is NAMESPACE:
            old["status"] = {**old.get("status", {}), "phase": "Terminating"}
        try:
            await self._store.update(place.kind.id, old)
        except ConflictError:
            return False
        return True


async def _offloaded(large: bool, decide: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `decide`, in another thread if it would block the event loop for too long."""
    return await asyncio.to_thread(decide, *args, **kwargs) if large else decide(*args, **kwargs)


def _preconditions(old: Json, options: DeleteOptions, place: Place) -> None:
    current = old["metadata"]
    for field_name, expected in (("uid", options.uid), ("resourceVersion", options.version)):
        if expected and expected != current.get(field_name):
            label = "UID" if field_name == "uid" else "ResourceVersion"
            raise ConflictError(
                f'Operation cannot be fulfilled on {place.kind.id} "{place.name}": Precondition failed: {label} in '
                f"precondition: {expected[:80]}, {label} in object meta: {current.get(field_name)}"
            )


def _conflict(place: Place) -> ConflictError:
    return ConflictError(
        f'Operation cannot be fulfilled on {place.kind.id} "{place.name}": the object has been modified; please apply '
        "your changes to the latest version and try again"
    )


def _busy(place: Place) -> ConflictError:
    return ConflictError(
        f'Operation cannot be fulfilled on {place.kind.id} "{place.name}": too many concurrent writes; try again later'
    )


def _check_size(body: Json) -> None:
    size = len(orjson.dumps(body))
    if size > MAX_OBJECT_BYTES:
        raise TooLargeError(f"the object is too large: limit is {MAX_OBJECT_BYTES} bytes, got {size}")
