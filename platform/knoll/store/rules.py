"""The effect of a write: the rules that both stores share. Pure.

An object is stored as canonical JSON without its resourceVersion, which the store adds on reading. So whether a write
changes anything is a comparison of bytes.
"""

import gc
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import orjson

from knoll.store.compression import compress, deflate
from knoll.store.protocol import EventType, WatchEvent
from knoll.values.errors import BadRequestError, ConflictError
from knoll.values.json import Json
from knoll.values.timestamps import timestamp

RECENT_WRITES = 64
"""Writes of this process whose content is kept until their events have come back."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write that is decided but not executed: it is valid only while the object still has version `at`."""

    type: EventType
    resource: str
    key: str
    """`namespace/name`."""
    at: int | None
    """Version that the object must still have; None if it must not exist."""
    data: bytes
    """The object after the write; for a removal its last state."""
    before: bytes
    """The object before the write; empty if it did not exist."""
    owners: frozenset[str]
    """uids of its owners after the write; none after a removal."""
    owners_before: frozenset[str]
    body: Json
    """The decoded `data`, as the caller passed it; it must not be mutated from now on."""

    @property
    def removes(self) -> bool:
        return self.type == "DELETED"


def key_of(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def sort_key(key: str) -> tuple[str, str]:
    """By namespace, then name: a plain comparison of keys would put `a-b/x` before `a/x`."""
    namespace, _, name = key.partition("/")
    return namespace, name


def key_in(body: Json) -> str:
    meta = body["metadata"]
    return key_of(meta.get("namespace") or "", meta["name"])


def describe(resource: str, key: str) -> str:
    """An object as it is named in Kubernetes' messages: without its namespace."""
    return f'{resource} "{sort_key(key)[1]}"'


def encode(body: Json) -> bytes:
    """Canonical JSON without the resourceVersion. Raises: BadRequestError (a value that JSON cannot represent)."""
    meta = {name: value for name, value in body["metadata"].items() if name != "resourceVersion"}
    try:
        return compact(orjson.dumps({**body, "metadata": meta}, option=orjson.OPT_SORT_KEYS))
    except TypeError as error:
        raise BadRequestError(f"the object cannot be stored as JSON: {error}") from error


def compact(data: bytes) -> bytes:
    """The same bytes in a buffer of their size: those of orjson keep the much larger buffer of the serialization."""
    return bytes(memoryview(data))


def decode(data: bytes, version: int) -> Json:
    body: Json = orjson.loads(data)
    body["metadata"]["resourceVersion"] = str(version)
    return body


def written(write: Write, version: int) -> Json:
    """The object as it was stored by a write; shares its content with `write.body`."""
    return {**write.body, "metadata": {**write.body["metadata"], "resourceVersion": str(version)}}


def decode_all(stored: Iterable[tuple[int, bytes]]) -> list[Json]:
    """Decode many at once."""
    collecting = gc.isenabled()
    # Decoded JSON has no cycles; repeated garbage collections would take four times as long as the decoding.
    gc.disable()
    try:
        return [decode(data, version) for version, data in stored]
    finally:
        if collecting:
            gc.enable()


def owners_in(body: Json) -> frozenset[str]:
    references: Sequence[Json] = body["metadata"].get("ownerReferences") or ()
    return frozenset(reference["uid"] for reference in references if reference.get("uid"))


def plan_create(resource: str, body: Json) -> Write:
    return Write("ADDED", resource, key_in(body), None, encode(body), b"", owners_in(body), frozenset(), body)


def plan_update(resource: str, version: int, stored: bytes, body: Json, before: Json | None = None) -> Write | None:
    """Decide a replacement of an object; None if it changes nothing.

    Args: before: the decoded `stored`, if the caller has it.

    Raises: ConflictError.
    """
    key = key_in(body)
    old: Json = orjson.loads(stored) if before is None else before
    meta = body["metadata"]
    _check(resource, key, old, version, meta.get("uid") or "", str(meta.get("resourceVersion") or ""))
    data = encode(body)
    if meta.get("deletionTimestamp") and not meta.get("finalizers"):
        return Write("DELETED", resource, key, version, data, stored, frozenset(), owners_in(old), body)
    if data == stored:
        return None
    return Write("MODIFIED", resource, key, version, data, stored, owners_in(body), owners_in(old), body)


def plan_delete(
    resource: str, key: str, version: int, stored: bytes, *, uid: str, wanted_version: str, now: datetime
) -> Write | None:
    """Decide a deletion; None if the object is already being deleted and has finalizers. Raises: ConflictError."""
    body: Json = orjson.loads(stored)
    _check(resource, key, body, version, uid, wanted_version)
    meta, owners = body["metadata"], owners_in(body)
    if not meta.get("finalizers"):
        return Write("DELETED", resource, key, version, stored, stored, frozenset(), owners, body)
    if meta.get("deletionTimestamp"):
        return None
    meta["deletionTimestamp"] = timestamp(now.timestamp())
    meta["deletionGracePeriodSeconds"] = 0
    return Write("MODIFIED", resource, key, version, encode(body), stored, owners, owners, body)


def _check(resource: str, key: str, old: Json, version: int, uid: str, wanted_version: str) -> None:
    if uid and uid != old["metadata"].get("uid"):
        raise ConflictError(
            f"Operation cannot be fulfilled on {describe(resource, key)}: Precondition failed: UID in precondition: "
            f"{uid}, UID in object meta: {old['metadata'].get('uid')}"
        )
    if wanted_version and wanted_version != str(version):
        raise ConflictError(
            f"Operation cannot be fulfilled on {describe(resource, key)}: the object has been modified; please apply "
            "your changes to the latest version and try again"
        )


class Record:
    """An event in packed form, which is unpacked once for all readers."""

    __slots__ = ("_event", "_opens", "packed", "resource", "type", "version")

    def __init__(
        self,
        version: int,
        type_: EventType,
        resource: str,
        packed: bytes,
        opens: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Args: packed: as it is stored. opens: makes of it what `pack` made, where it is stored otherwise."""
        self._opens = opens
        self.version = version
        self.type: EventType = type_
        self.resource = resource
        self.packed = packed
        self._event: WatchEvent | None = None

    def event(self) -> WatchEvent:
        """The same object for every watcher, which must not be mutated. Raises: what `opens` raises."""
        if self._event is None:
            packed = self.packed if self._opens is None else self._opens(self.packed)
            write = _RECENT.pop(packed, None)
            if write is None:
                number, before, data = zlib.decompress(packed).split(b"\n")
                at, body = int(number), decode(data, self.version)
            else:
                at, before, data, body = write.at or 0, write.before, write.data, written(write, self.version)
            self._event = WatchEvent(
                self.type,
                self.resource,
                self.version,
                body,
                before=partial(decode, before, at) if before else None,
                data=partial(compress, self.resource, data),
            )
        return self._event

    def forget(self) -> None:
        """Keep only the packed form: unpacked it is ten times as large, and late readers can unpack it again."""
        self._event = None


def pack(write: Write) -> bytes:
    """The object before and after a write, packed together: compressed, the second takes almost no space."""
    packed = deflate(b"%d\n%b\n%b" % (write.at or 0, write.before, write.data))
    if len(_RECENT) >= RECENT_WRITES:
        del _RECENT[next(iter(_RECENT))]
    _RECENT[packed] = write
    return packed


_RECENT: dict[bytes, Write] = {}
"""By packed form, so that the process that wrote an event does not have to unpack it."""
