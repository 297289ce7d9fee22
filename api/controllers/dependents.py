"""Who must be looked at again when an object changed. Look-ups in the cache's indexes only. No I/O."""

from collections.abc import Iterator

from api.controllers import objects
from api.controllers.actions import Key
from api.controllers.cache import Cache, Seen, named_by
from knoll import kinds
from knoll.store import Json

SERVICE, CONFIGURATION, REVISION, ROUTE = (
    kinds.SERVICE.id, kinds.CONFIGURATION.id, kinds.REVISION.id, kinds.ROUTE.id,
)  # fmt: skip
MAPPING = kinds.DOMAIN_MAPPING.id
RECONCILED = (SERVICE, CONFIGURATION, REVISION, ROUTE, MAPPING, kinds.BUILD_KIND.id)
"""Kinds that have a reconciler."""


def keys(seen: Seen, cache: Cache) -> set[Key]:
    """The keys that a difference concerns, its own among them if its kind has a reconciler."""
    found = {seen.key} if seen.key[0] in RECONCILED else set()
    for body in (seen.before, seen.after):
        if body is None:
            continue
        found.update(_owner(seen.key, body))
        match seen.key[0]:
            case kinds.CONFIGURATION.id:
                found.update(_of_configuration(seen.key, body, cache))
            case kinds.REVISION.id:
                found.update(_of_revision(seen.key, body, cache))
            case kinds.ROUTE.id:
                found.update(_of_route(seen.key, body, cache))
            case kinds.SERVICE.id:
                found.update(mappings_to(seen.key[1], seen.key[2], cache))
            case kinds.DOMAIN_MAPPING.id:
                found.update((MAPPING, namespace, seen.key[2]) for namespace in cache.mappings_of_host(seen.key[2]))
    return found


def mappings_to(namespace: str, name: str, cache: Cache) -> Iterator[Key]:
    """The DomainMappings that lead to a Service or Route."""
    for host in cache.hosts_mapped_to(namespace, name):
        yield (MAPPING, namespace, host)


def _owner(key: Key, body: Json) -> Iterator[Key]:
    owner = objects.controller_of(body)
    resource = _OWNERS.get((owner["kind"], owner["apiVersion"])) if owner else None
    if owner and resource:
        yield (resource, key[1], owner["name"])
    elif key[0] in (CONFIGURATION, ROUTE):
        # One that a Service finds in its place without owning it.
        yield (SERVICE, *key[1:])


def _of_configuration(key: Key, body: Json, cache: Cache) -> Iterator[Key]:
    _, namespace, name = key
    for route in cache.routes_naming(namespace, "configuration", name):
        yield (ROUTE, namespace, route)
    latest = objects.status(body).get("latestCreatedRevisionName")
    if latest:
        yield (REVISION, namespace, latest)


def _of_revision(key: Key, body: Json, cache: Cache) -> Iterator[Key]:
    _, namespace, name = key
    # A Route that waits for its instances does not name it yet.
    for route in cache.routes_naming(namespace, "revision", name) | objects.routes_named(body):
        yield (ROUTE, namespace, route)


def _of_route(key: Key, body: Json, cache: Cache) -> Iterator[Key]:
    _, namespace, name = key
    for _, what, target in named_by(body):
        yield (CONFIGURATION if what == "configuration" else REVISION, namespace, target)
        if what == "revision":
            yield from _owner((REVISION, namespace, target), cache.get(REVISION, namespace, target) or _NOTHING)
        else:
            latest = objects.status(cache.get(CONFIGURATION, namespace, target) or {}).get("latestCreatedRevisionName")
            if latest:
                yield (REVISION, namespace, latest)
    for revision in cache.revisions_of_route(namespace, name):
        yield (REVISION, namespace, revision)


_NOTHING: Json = {"metadata": {}}
_OWNERS = {(kind.kind, kind.api_version): kind.id for kind in kinds.KINDS if kind.id in RECONCILED}
