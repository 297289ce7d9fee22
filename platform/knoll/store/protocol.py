"""The store: objects, compare-and-set writes, finalizers, and an event history from which watches resume.

A small etcd on Redis. Bodies are JSON objects as clients see them; the store controls only `metadata.resourceVersion`
and the time of removal.
"""

from collections.abc import AsyncIterator, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Literal, Protocol

from knoll.values.errors import KnollError
from knoll.values.json import Json

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Listing:
    """A consistent list of objects at one version."""

    items: list[Json]
    """Sorted by namespace, then name."""
    version: int
    """Resource version to watch from."""


@dataclass(frozen=True, slots=True)
class PackedObject:
    """One object as stored; `rules.decode` decodes it."""

    key: str
    """`namespace/name`."""
    version: int
    data: bytes
    """JSON without the resourceVersion."""


@dataclass(frozen=True, slots=True)
class PackedListing:
    """An encoded and unordered list, which takes a fraction of the memory and time of a decoded one."""

    items: list[PackedObject]
    version: int


@dataclass(frozen=True, slots=True)
class ObjectWrite:
    """A creation or replacement that is written together with others."""

    resource: str
    body: Json
    before: Json | None = None
    """The object as the caller read it, including its resourceVersion; None for a creation."""


class WatchEvent:
    """One write. All watchers of a process share the same event: its bodies must not be mutated."""

    __slots__ = ("_before", "_data", "_read_before", "_read_data", "body", "resource", "type", "version")

    def __init__(
        self,
        type_: EventType,
        resource: str,
        version: int,
        body: Json,
        *,
        before: Callable[[], Json] | None = None,
        data: Callable[[], bytes] = bytes,
    ) -> None:
        """Args: before, data: return the attributes of these names, which few watchers need."""
        self.type: EventType = type_
        self.resource = resource
        """Resource id, see `kinds`."""
        self.version = version
        self.body = body
        """The object after the write; for DELETED its last state with the resource version of the deletion."""
        self._read_before, self._read_data = before, data
        self._before: Json | None = None
        self._data: bytes | None = None

    @property
    def before(self) -> Json | None:
        """The object before the write; None for ADDED. Watches with a selector detect with it what left the selection.

        It is decoded when it is first read.
        """
        if self._before is None and self._read_before is not None:
            self._before = self._read_before()
        return self._before

    @property
    def data(self) -> bytes:
        """`body` in compressed form (see `compression`), shared by all readers that keep it."""
        if self._data is None:
            self._data = self._read_data()
        return self._data


class Source(Protocol):
    """What an informer reads: a store, or a part of it that another process publishes."""

    async def list_packed(self, resource: str) -> PackedListing:
        """All objects of a kind in encoded form, with the version at which they were read."""
        ...

    def watch(self, since: int, resources: Set[str] | None = None) -> AsyncIterator[WatchEvent]:
        """Every event after version `since`, of some kinds or (None) of all, in order, without end.

        `since` is the version of a list or an event; 0 is not a version. Waits while the store is unavailable.

        Raises: ExpiredError if the history no longer reaches back to `since`, or the store has lost data.
        """
        ...


class Store(Source, Protocol):
    """Objects by resource id, namespace ("" for cluster-wide kinds) and name.

    Bodies that were read belong to the caller. The result of a write may share parts with the written body and with
    the event: none of them may be mutated afterwards.
    """

    async def get(self, resource: str, namespace: str, name: str) -> Json:
        """Raises: NotFoundError."""
        ...

    async def list(self, resource: str, namespace: str | None = None) -> Listing:
        """All objects of a kind, of one namespace or (None) of all, with the version at which they were read."""
        ...

    async def create(self, resource: str, body: Json) -> Json:
        """Add an object; its resourceVersion is overwritten. Raises: AlreadyExistsError."""
        ...

    async def update(self, resource: str, body: Json, *, before: Json | None = None) -> Json:
        """Replace an object.

        With a `metadata.resourceVersion`, only if it is still the stored one; a `metadata.uid` must match as well. An
        update that changes nothing creates no event and keeps the version. If the body has a deletionTimestamp and no
        finalizers any more, the object is removed instead (event DELETED).

        Args:
            before: the object as the caller read it, including its resourceVersion, if available; it is not read again
                if it is still the newest.

        Raises: NotFoundError, ConflictError.
        """
        ...

    async def write_all(self, writes: Sequence[ObjectWrite]) -> Sequence[Json | KnollError]:
        """Create and replace objects in one round trip, in order; a failure does not stop the others.

        Returns: for each what `create` or `update` would return, or the error that it would raise.
        """
        ...

    async def delete(self, resource: str, namespace: str, name: str, *, uid: str = "", version: str = "") -> Json:
        """Remove an object, or set its deletionTimestamp if it has finalizers.

        Args:
            uid, version: preconditions; empty for none.

        Returns: the object after the call (its last state if it was removed).

        Raises: NotFoundError, ConflictError (a precondition does not hold).
        """
        ...

    async def owned_by(self, uid: str) -> Sequence[tuple[str, str, str]]:
        """(resource, namespace, name) of every object whose ownerReferences contain `uid`."""
        ...
