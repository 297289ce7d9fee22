"""Every object the controllers look at, in memory, with the indexes they look things up by. No I/O.

Writes of our own go in as they are answered, before the watch brings them: the version decides which is newer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from api.controllers import objects
from api.controllers.actions import Key
from knoll import kinds
from knoll.store import Json

_K = TypeVar("_K")
_V = TypeVar("_V")

_REMEMBERED_REMOVALS = 10_000

Named = tuple[str, str, str]
"""(namespace, `configuration` or `revision`, name) that a Route's traffic names."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One difference that the cache has taken in."""

    key: Key
    before: Json | None
    after: Json | None


class Cache:
    """Bodies are shared: nobody may change one that was read here."""

    def __init__(self) -> None:
        self._bodies: dict[str, dict[tuple[str, str], Json]] = defaultdict(dict)
        self._removed: dict[Key, int] = {}
        self._owned: dict[str, set[Key]] = defaultdict(set)
        self._routes_naming: dict[Named, set[str]] = defaultdict(set)
        self._revisions_of_route: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._mappings_of_host: dict[str, set[str]] = defaultdict(set)
        self._hosts_mapped_to: dict[tuple[str, str], set[str]] = defaultdict(set)

    def get(self, resource: str, namespace: str, name: str) -> Json | None:
        return self._bodies[resource].get((namespace, name))

    def all(self, resource: str) -> Mapping[tuple[str, str], Json]:
        return self._bodies[resource]

    def owned(self, owner: Json, resource: str) -> list[Json]:
        """Objects of a kind whose controller is `owner`, by name."""
        keys = sorted(key for key in self._owned.get(owner["metadata"]["uid"], ()) if key[0] == resource)
        return [self._bodies[resource][key[1:]] for key in keys]

    def routes_naming(self, namespace: str, what: str, name: str) -> frozenset[str]:
        """Names of Routes whose spec or status names a `configuration` or a `revision`."""
        return frozenset(self._routes_naming.get((namespace, what, name), ()))

    def revisions_of_route(self, namespace: str, name: str) -> frozenset[str]:
        """Names of Revisions whose annotation names a Route."""
        return frozenset(self._revisions_of_route.get((namespace, name), ()))

    def mappings_of_host(self, host: str) -> frozenset[str]:
        """Namespaces that have a DomainMapping of a host."""
        return frozenset(self._mappings_of_host.get(host, ()))

    def hosts_mapped_to(self, namespace: str, name: str) -> frozenset[str]:
        """Names of the DomainMappings that lead to a Service or Route."""
        return frozenset(self._hosts_mapped_to.get((namespace, name), ()))

    def put(self, resource: str, body: Json, *, force: bool = False) -> Seen | None:
        """Take in an object; None when it is not newer than what is known.

        Args:
            force: it was read just now, because what is known proved wrong: take it in even if older (a Redis that
                came back from an older file).
        """
        key = objects.key_of(resource, body)
        version = int(body["metadata"]["resourceVersion"])
        before = self._bodies[resource].get(key[1:])
        known = int(before["metadata"]["resourceVersion"]) if before is not None else self._removed.get(key, 0)
        if known == version or (known > version and not force):
            return None
        if before is not None:
            self._unindex(key, before)
        self._bodies[resource][key[1:]] = body
        self._index(key, body)
        return Seen(key, before, body)

    def remove(self, resource: str, namespace: str, name: str, version: int) -> Seen | None:
        """Take in a removal; None when a newer object of that name is known, or none at all."""
        key = (resource, namespace, name)
        before = self._bodies[resource].get(key[1:])
        if before is not None and int(before["metadata"]["resourceVersion"]) > version:
            return None
        self._removed.pop(key, None)
        self._removed[key] = version
        if len(self._removed) > _REMEMBERED_REMOVALS:
            del self._removed[next(iter(self._removed))]
        if before is None:
            return None
        self._unindex(key, before)
        del self._bodies[resource][key[1:]]
        return Seen(key, before, None)

    def replace(self, resource: str, bodies: Iterable[Json], version: int) -> list[Seen]:
        """Take in all objects of a kind as they were at `version`; returns what differs from what was known."""
        listed = {objects.key_of(resource, body)[1:]: body for body in bodies}
        gone = [name for name in self._bodies[resource] if name not in listed]
        seen = [self.remove(resource, *name, version) for name in gone]
        seen += [self.put(resource, body) for body in listed.values()]
        return [difference for difference in seen if difference is not None]

    def _index(self, key: Key, body: Json) -> None:
        owner = objects.controller_of(body)
        if owner:
            self._owned[owner["uid"]].add(key)
        if key[0] == kinds.ROUTE.id:
            for named in named_by(body):
                self._routes_naming[named].add(key[2])
        elif key[0] == kinds.REVISION.id:
            for route in objects.routes_named(body):
                self._revisions_of_route[key[1], route].add(key[2])
        elif key[0] == kinds.DOMAIN_MAPPING.id:
            self._mappings_of_host[key[2]].add(key[1])
            self._hosts_mapped_to[key[1], body["spec"]["ref"].get("name", "")].add(key[2])

    def _unindex(self, key: Key, body: Json) -> None:
        owner = objects.controller_of(body)
        if owner:
            _discard(self._owned, owner["uid"], key)
        if key[0] == kinds.ROUTE.id:
            for named in named_by(body):
                _discard(self._routes_naming, named, key[2])
        elif key[0] == kinds.REVISION.id:
            for route in objects.routes_named(body):
                _discard(self._revisions_of_route, (key[1], route), key[2])
        elif key[0] == kinds.DOMAIN_MAPPING.id:
            _discard(self._mappings_of_host, key[2], key[1])
            _discard(self._hosts_mapped_to, (key[1], body["spec"]["ref"].get("name", "")), key[2])


def named_by(route: Json) -> set[Named]:
    """What the traffic of a Route names, in its spec and its status."""
    namespace = route["metadata"]["namespace"]
    targets = [*(route["spec"].get("traffic") or ()), *(objects.status(route).get("traffic") or ())]
    found: set[Named] = set()
    for target in targets:
        if target.get("configurationName"):
            found.add((namespace, "configuration", target["configurationName"]))
        if target.get("revisionName"):
            found.add((namespace, "revision", target["revisionName"]))
    return found


def _discard(index: dict[_K, set[_V]], key: _K, value: _V) -> None:
    values = index.get(key)
    if values is not None:
        values.discard(value)
        if not values:
            del index[key]
