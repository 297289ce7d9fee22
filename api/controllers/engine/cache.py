"""An in-memory cache of every object that the controllers follow, with indexes. No I/O.

The controllers' own writes are added at once, before the watch delivers them; of two bodies the one with the higher
version is newer. Bodies are stored compressed, and recently used ones decoded as well, so that thousands of idle
Services need little memory.
"""

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import ObjectKey
from api.controllers.reconciler.conditions import INGRESS_READY, REFUSED
from knoll.store.compression import compress, decompress
from knoll.store.protocol import PackedListing
from knoll.store.rules import decode, encode
from knoll.values import kinds
from knoll.values.json import Json

_K = TypeVar("_K")
_V = TypeVar("_V")

_REMEMBERED_REMOVALS = 10_000
_UNPACKED = 250
"""Number of decoded bodies that are kept: enough for a few dozen Services that change at the same time."""

TrafficReference = tuple[str, str, str]
"""(namespace, `configuration` or `revision`, name) that a Route's traffic names."""


@dataclass(frozen=True, slots=True)
class CacheChange:
    """One change of the cache."""

    key: ObjectKey
    before: Json | None
    after: Json | None


class _Index(Generic[_K, _V]):
    """The values of each key, as tuples: nearly every key has one, and a set takes four times the memory."""

    def __init__(self) -> None:
        self._values: dict[_K, tuple[_V, ...]] = {}

    def __iter__(self) -> Iterator[tuple[_K, tuple[_V, ...]]]:
        return iter(self._values.items())

    def get(self, key: _K) -> tuple[_V, ...]:
        return self._values.get(key, ())

    def add(self, key: _K, value: _V) -> None:
        values = self.get(key)
        if value not in values:
            self._values[key] = (*values, value)

    def discard(self, key: _K, value: _V) -> None:
        values = tuple(other for other in self.get(key) if other != value)
        if values:
            self._values[key] = values
        else:
            self._values.pop(key, None)


class Cache:
    """Bodies are shared: callers must not mutate them."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[tuple[str, str], tuple[int, bytes]]] = defaultdict(dict)
        self._unpacked: OrderedDict[ObjectKey, Json] = OrderedDict()
        self._removed: dict[ObjectKey, int] = {}
        self._owned = _Index[str, ObjectKey]()
        self._routes_naming = _Index[TrafficReference, str]()
        self._revisions_of_route = _Index[tuple[str, str], str]()
        self._refused_routes = _Index[str, str]()
        self._mappings_of_host = _Index[str, str]()
        self._hosts_mapped_to = _Index[tuple[str, str], str]()

    def get(self, resource: str, namespace: str, name: str) -> Json | None:
        key = (resource, namespace, name)
        body = self._unpacked.get(key)
        if body is not None:
            self._unpacked.move_to_end(key)
            return body
        kept = self._kept[resource].get((namespace, name))
        if kept is None:
            return None
        unpacked = decode(decompress(key[0], kept[1]), kept[0])
        self._remember(key, unpacked)
        return unpacked

    @contextmanager
    def including(self) -> Iterator[Callable[[ObjectKey, Json], None]]:
        """Context in which `get` also returns objects that are about to be created.

        It must end before others read the cache. Returns: a function that adds one of them.
        """
        added: list[ObjectKey] = []

        def include(key: ObjectKey, body: Json) -> None:
            added.append(key)
            self._unpacked[key] = body

        try:
            yield include
        finally:
            for key in added:
                self._unpacked.pop(key, None)

    def names(self, resource: str) -> list[tuple[str, str]]:
        """Namespace and name of every object of a kind."""
        return list(self._kept[resource])

    def owned(self, owner: Json, resource: str) -> list[Json]:
        """Objects of a kind in the namespace of `owner` that it controls, sorted by name.

        Owner references from other namespaces do not count: anyone could write them.
        """
        meta = owner["metadata"]
        place = (resource, meta.get("namespace", ""))
        keys = sorted(key for key in self._owned.get(meta["uid"]) if key[:2] == place)
        return [body for key in keys if (body := self.get(*key)) is not None]

    def routes_naming(self, namespace: str, kind: str, name: str) -> frozenset[str]:
        """Names of Routes whose spec or status names a `configuration` or a `revision`."""
        return frozenset(self._routes_naming.get((namespace, kind, name)))

    def revisions_of_route(self, namespace: str, name: str) -> frozenset[str]:
        """Names of Revisions whose annotation names a Route."""
        return frozenset(self._revisions_of_route.get((namespace, name)))

    def refused_routes(self, namespace: str) -> frozenset[str]:
        """Names of Routes with a name or host that belongs to another object."""
        return frozenset(self._refused_routes.get(namespace))

    def all_refused_routes(self) -> list[tuple[str, str]]:
        """Namespace and name of such Routes in all namespaces."""
        return [(namespace, name) for namespace, names in self._refused_routes for name in names]

    def mappings_of_host(self, host: str) -> frozenset[str]:
        """Namespaces that have a DomainMapping of a host."""
        return frozenset(self._mappings_of_host.get(host))

    def hosts_mapped_to(self, namespace: str, name: str) -> frozenset[str]:
        """Names of the DomainMappings that lead to a Service or Route."""
        return frozenset(self._hosts_mapped_to.get((namespace, name)))

    def put(self, resource: str, body: Json, *, force: bool = False, packed: bytes | None = None) -> CacheChange | None:
        """Store an object; returns None if it is not newer than the cached one.

        Args:
            force: store it even if it is older. For an object that was just read after a conflict: Redis may have been
                restored from an older file.
            packed: the body as the event contained it, if available.
        """
        _, namespace, name = objects.key_of(resource, body)
        # An object's name is also that of its dependents: all share one string.
        key = (resource, sys.intern(namespace), sys.intern(name))
        version = int(body["metadata"]["resourceVersion"])
        kept = self._kept[resource].get(key[1:])
        cached_version = kept[0] if kept is not None else self._removed.get(key, 0)
        if cached_version == version and kept is not None and packed is not None:
            # The event of our own write: from now on its bytes are shared with other caches.
            self._kept[resource][key[1:]] = (version, packed)
        if (cached_version == version and (kept is not None or not force)) or (cached_version > version and not force):
            return None
        before = self.get(*key)
        if before is not None:
            self._unindex(key, before)
        data = packed if packed is not None else compress(resource, encode(body))
        self._kept[resource][key[1:]] = (version, data)
        self._remember(key, body)
        self._index(key, body)
        return CacheChange(key, before, body)

    def remove(self, resource: str, namespace: str, name: str, version: int) -> CacheChange | None:
        """Remove an object; returns None if the cache has none, or a newer one of that name."""
        key = (resource, namespace, name)
        kept = self._kept[resource].get(key[1:])
        if kept is not None and kept[0] > version:
            return None
        before = self.get(*key)
        self._removed.pop(key, None)
        self._removed[key] = version
        if len(self._removed) > _REMEMBERED_REMOVALS:
            del self._removed[next(iter(self._removed))]
        if before is None:
            return None
        self._unindex(key, before)
        del self._kept[resource][key[1:]]
        self._unpacked.pop(key, None)
        return CacheChange(key, before, None)

    def replace(self, resource: str, listing: PackedListing) -> Iterator[CacheChange]:
        """Replace all objects of a kind by a listing; yields the changes.

        Each change is made when it is requested: the caller must exhaust the iterator.
        """
        listed = {_name_of(item.key) for item in listing.items}
        for namespace, name in [place for place in self._kept[resource] if place not in listed]:
            seen = self.remove(resource, namespace, name, listing.version)
            if seen is not None:
                yield seen
        for item in listing.items:
            kept = self._kept[resource].get(_name_of(item.key))
            if kept is None or kept[0] != item.version:
                seen = self.put(resource, decode(item.data, item.version), packed=compress(resource, item.data))
                if seen is not None:
                    yield seen

    def _remember(self, key: ObjectKey, body: Json) -> None:
        self._unpacked[key] = body
        self._unpacked.move_to_end(key)
        if len(self._unpacked) > _UNPACKED:
            self._unpacked.popitem(last=False)

    def _index(self, key: ObjectKey, body: Json) -> None:
        owner = objects.controller_of(body)
        if owner:
            self._owned.add(sys.intern(owner["uid"]), key)
        if key[0] == kinds.ROUTE.id:
            for named in named_by(body):
                self._routes_naming.add(named, key[2])
            if (objects.condition(body, INGRESS_READY) or {}).get("reason") in REFUSED:
                self._refused_routes.add(key[1], key[2])
        elif key[0] == kinds.REVISION.id:
            for route in objects.routes_named(body):
                self._revisions_of_route.add((key[1], route), key[2])
        elif key[0] == kinds.DOMAIN_MAPPING.id:
            self._mappings_of_host.add(key[2], key[1])
            self._hosts_mapped_to.add((key[1], body["spec"]["ref"].get("name", "")), key[2])

    def _unindex(self, key: ObjectKey, body: Json) -> None:
        owner = objects.controller_of(body)
        if owner:
            self._owned.discard(owner["uid"], key)
        if key[0] == kinds.ROUTE.id:
            for named in named_by(body):
                self._routes_naming.discard(named, key[2])
            self._refused_routes.discard(key[1], key[2])
        elif key[0] == kinds.REVISION.id:
            for route in objects.routes_named(body):
                self._revisions_of_route.discard((key[1], route), key[2])
        elif key[0] == kinds.DOMAIN_MAPPING.id:
            self._mappings_of_host.discard(key[2], key[1])
            self._hosts_mapped_to.discard((key[1], body["spec"]["ref"].get("name", "")), key[2])


def _name_of(key: str) -> tuple[str, str]:
    namespace, _, name = key.partition("/")
    return namespace, name


def named_by(route: Json) -> set[TrafficReference]:
    """The Configurations and Revisions that a Route names in the traffic of its spec and status."""
    namespace = route["metadata"]["namespace"]
    targets = [*(route["spec"].get("traffic") or ()), *(objects.status(route).get("traffic") or ())]
    named: set[TrafficReference] = set()
    for target in targets:
        if target.get("configurationName"):
            named.add((namespace, "configuration", target["configurationName"]))
        if target.get("revisionName"):
            named.add((namespace, "revision", target["revisionName"]))
    return named
