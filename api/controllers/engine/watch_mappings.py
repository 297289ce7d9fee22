"""Which objects to reconcile when an object changed: look-ups in the cache's indexes. No I/O."""

from collections.abc import Iterator

from api.controllers.engine.cache import Cache, CacheChange, named_by
from api.controllers.engine.routing_mirror import RoutingMirror
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import ObjectKey
from knoll.values import kinds
from knoll.values.json import Json

SERVICE, CONFIGURATION, REVISION, ROUTE = (
    kinds.SERVICE.id, kinds.CONFIGURATION.id, kinds.REVISION.id, kinds.ROUTE.id,
)  # fmt: skip
MAPPING = kinds.DOMAIN_MAPPING.id
CLAIM = kinds.CLUSTER_DOMAIN_CLAIM.id
RECONCILED = (SERVICE, CONFIGURATION, REVISION, ROUTE, MAPPING, CLAIM, kinds.BUILD_KIND.id)
"""Kinds that have a reconciler."""


def keys(seen: CacheChange, cache: Cache) -> set[ObjectKey]:
    """The keys that a change affects; includes its own if its kind has a reconciler."""
    affected = {seen.key} if seen.key[0] in RECONCILED else set()
    for body in (seen.before, seen.after):
        if body is None:
            continue
        affected.update(_owner(seen.key, body))
        match seen.key[0]:
            case kinds.CONFIGURATION.id:
                affected.update(_of_configuration(seen.key, body, cache))
            case kinds.REVISION.id:
                affected.update(_of_revision(seen.key, body, cache))
            case kinds.ROUTE.id:
                affected.update(_of_route(seen.key, body, cache))
            case kinds.SERVICE.id:
                affected.update(mappings_to(seen.key[1], seen.key[2], cache))
            case kinds.DOMAIN_MAPPING.id | kinds.CLUSTER_DOMAIN_CLAIM.id:
                affected.update(_of_host(seen.key[2], cache))
            case kinds.CORE_SERVICE.id if seen.after is None:
                affected.update((ROUTE, seen.key[1], name) for name in cache.refused_routes(seen.key[1]))
    if seen.key[0] in _DECIDE_CLAIMS and (seen.before is None or seen.after is None):
        # Host names contain namespaces, and the first binding ends automatic claims: rare, and affects all mappings.
        affected.update((MAPPING, namespace, host) for namespace, host in cache.names(MAPPING))
    return affected


_DECIDE_CLAIMS = frozenset({kinds.NAMESPACE.id, kinds.ROLE_BINDING.id, kinds.CLUSTER_ROLE_BINDING.id})


def _of_host(host: str, cache: Cache) -> Iterator[ObjectKey]:
    for namespace in cache.mappings_of_host(host):
        yield (MAPPING, namespace, host)
    if cache.get(CLAIM, "", host) is not None:
        yield (CLAIM, "", host)


def contenders(path: str, before: frozenset[str], routing: RoutingMirror, cache: Cache) -> Iterator[ObjectKey]:
    """The Routes to reconcile after the routing entry of a Route was put or removed.

    Args:
        path: of the entry, `namespace/name` of the Route.
        before: the hosts of the entry before.
    """
    entry = routing.get(path)
    now = frozenset(entry[1].hosts) if entry is not None else frozenset()
    if now == before:
        return
    for other in routing.contenders(path):
        namespace, _, name = other.partition("/")
        if ":" not in name:
            yield (ROUTE, namespace, name)
    if before - now:
        for namespace, name in cache.all_refused_routes():
            yield (ROUTE, namespace, name)


def mappings_to(namespace: str, name: str, cache: Cache) -> Iterator[ObjectKey]:
    """The DomainMappings that lead to a Service or Route."""
    for host in cache.hosts_mapped_to(namespace, name):
        yield (MAPPING, namespace, host)


def _owner(key: ObjectKey, body: Json) -> Iterator[ObjectKey]:
    owner = objects.controller_of(body)
    resource = _OWNERS.get((owner["kind"], owner["apiVersion"])) if owner else None
    if owner and resource:
        yield (resource, key[1], owner["name"])
    elif key[0] in (CONFIGURATION, ROUTE):
        # It may have the name that a Service needs without belonging to that Service.
        yield (SERVICE, *key[1:])


def _of_configuration(key: ObjectKey, body: Json, cache: Cache) -> Iterator[ObjectKey]:
    _, namespace, name = key
    for route in cache.routes_naming(namespace, "configuration", name):
        yield (ROUTE, namespace, route)
    latest = objects.status(body).get("latestCreatedRevisionName")
    if latest:
        yield (REVISION, namespace, latest)


def _of_revision(key: ObjectKey, body: Json, cache: Cache) -> Iterator[ObjectKey]:
    _, namespace, name = key
    # A Route that waits for the instances of a Revision is not in the annotation of the Revision yet.
    for route in cache.routes_naming(namespace, "revision", name) | objects.routes_named(body):
        yield (ROUTE, namespace, route)


def _of_route(key: ObjectKey, body: Json, cache: Cache) -> Iterator[ObjectKey]:
    _, namespace, name = key
    for _, kind, target in named_by(body):
        yield (CONFIGURATION if kind == "configuration" else REVISION, namespace, target)
        if kind == "revision":
            yield from _owner((REVISION, namespace, target), cache.get(REVISION, namespace, target) or _NOTHING)
        else:
            latest = objects.status(cache.get(CONFIGURATION, namespace, target) or {}).get("latestCreatedRevisionName")
            if latest:
                yield (REVISION, namespace, latest)
    for revision in cache.revisions_of_route(namespace, name):
        yield (REVISION, namespace, revision)


_NOTHING: Json = {"metadata": {}}
_OWNERS = {(kind.kind, kind.api_version): kind.id for kind in kinds.KINDS if kind.id in RECONCILED}
