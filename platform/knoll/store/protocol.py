"""The store: objects, compare-and-set writes, finalizers, and a history of events that watches resume from.

A small etcd over Redis. Bodies are JSON objects as clients see them; the store owns `metadata.resourceVersion` and the
moment of removal, nothing else of them.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from knoll.values.json import Json


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects as they were together at one version."""

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
    """An encoded and unordered listing, which takes a small part of the memory and time of a decoded one."""

    items: list[PackedObject]
    version: int


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One write. `body` is the object after it; for DELETED its last state with the deletion's resource version.

    All watchers of a process are given the same event: its bodies are to be read, not changed.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: str
    """Resource id, see `kinds`."""
    version: int
    body: Json
    before: Json | None = None
    """The object as it was; None for ADDED. A watch with a selector needs it to tell what left the selection."""
    data: bytes = b""
    """`body` as it is kept in memory (see `compression`), for those who keep it: one copy for all of them."""


class Source(Protocol):
    """What an informer reads from: a store, or a part of one that another process publishes."""

    async def list_packed(self, resource: str) -> PackedListing:
        """All objects of a kind as they are kept, with the version they were read at."""
        ...

    def watch(self, since: int, resource: str | None = None) -> AsyncIterator[WatchEvent]:
        """Every event after version `since`, of one kind or (None) of all, in order, for ever.

        `since` is the version of a listing or an event; 0 is no such version. Waits while the store is away.

        Raises: ExpiredError when the history no longer reaches back to `since`, or the store has lost data.
        """
        ...


class Store(Source, Protocol):
    """Objects by resource id, namespace ("" for cluster-wide kinds) and name. Returned bodies belong to the caller."""

    async def get(self, resource: str, namespace: str, name: str) -> Json:
        """Raises: NotFoundError."""
        ...

    async def list(self, resource: str, namespace: str | None = None) -> Listing:
        """All objects of a kind, of one namespace or (None) of all, with the version they were read at."""
        ...

    async def create(self, resource: str, body: Json) -> Json:
        """Add an object; its resourceVersion is set, whatever it was. Raises: AlreadyExistsError."""
        ...

    async def update(self, resource: str, body: Json, *, before: Json | None = None) -> Json:
        """Replace an object.

        With a `metadata.resourceVersion`, only if it is still the stored one; a `metadata.uid` must match as well. An
        update that changes nothing makes no event and keeps its version. When the body has a deletionTimestamp and no
        finalizers any more, the object is removed instead (event DELETED).

        Args:
            before: the object as the caller was given it, resourceVersion included, if that is at hand: it need not be
                read again when it is still the newest.

        Raises: NotFoundError, ConflictError.
        """
        ...

    async def delete(self, resource: str, namespace: str, name: str, *, uid: str = "", version: str = "") -> Json:
        """Remove an object, or give it a deletionTimestamp while it has finalizers.

        Args:
            uid, version: preconditions; empty is none.

        Returns: the object as it is after the call (removed: its last state).

        Raises: NotFoundError, ConflictError (a precondition does not hold).
        """
        ...

    async def owned_by(self, uid: str) -> Sequence[tuple[str, str, str]]:
        """(resource, namespace, name) of every object whose ownerReferences name `uid`."""
        ...
