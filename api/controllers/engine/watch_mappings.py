"""Which objects to reconcile when an object changed: look-ups in the cache's indexes. No I/O."""

from collections.abc import Callable, Collection, Iterable, Iterator

from api.controllers.engine.cache import Cache, CacheChange, TrafficReference, named_by
from api.controllers.engine.routing_mirror import RoutingMirror
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import ObjectKey
from api.controllers.route import route, route_labeler
from api.controllers.service import configuration
from knoll.values import kinds
from knoll.values.json import Json

SERVICE, CONFIGURATION, REVISION, ROUTE = (
    kinds.SERVICE.id, kinds.CONFIGURATION.id, kinds.REVISION.id, kinds.ROUTE.id,
)  # fmt: skip
MAPPING = kinds.DOMAIN_MAPPING.id
CLAIM = kinds.CLUSTER_DOMAIN_CLAIM.id
RECONCILED = (SERVICE, CONFIGURATION, REVISION, ROUTE, MAPPING, CLAIM, kinds.BUILD_KIND.id)
"""Kinds that have a reconciler."""


def keys(seen: CacheChange, cache: Cache, by: Collection[ObjectKey] = ()) -> set[ObjectKey]:
    """The keys that a change affects: of objects whose reconciliation reads what changed.

    Args:
        by: the objects whose reconciliation made the change, if one did. They are not affected: their
            reconciliation took it into account.
    """
    affected = {seen.key} if seen.key[0] in RECONCILED else set()
    match seen.key[0]:
        case kinds.CONFIGURATION.id:
            affected.update(_of_configuration(seen, cache))
        case kinds.REVISION.id:
            affected.update(_of_revision(seen, cache))
        case kinds.ROUTE.id:
            affected.update(_of_route(seen, cache))
        case kinds.SERVICE.id:
            affected.update(mappings_to(seen.key[1], seen.key[2], cache))
        case kinds.DOMAIN_MAPPING.id | kinds.CLUSTER_DOMAIN_CLAIM.id:
            affected.update(_of_host(seen.key[2], cache))
        case kinds.CORE_SERVICE.id if seen.after is None:
            affected.update((ROUTE, seen.key[1], name) for name in cache.refused_routes(seen.key[1]))
    if seen.key[0] != REVISION or _differs(seen, configuration.read_of_revision):
        affected.update(_owners(seen))
    if seen.key[0] in _DECIDE_CLAIMS and (seen.before is None or seen.after is None):
        # Host names contain namespaces, and the first binding ends automatic claims: rare, and affects all mappings.
        affected.update((MAPPING, namespace, host) for namespace, host in cache.names(MAPPING))
    return affected.difference(key for key in by if key[0] in _SEE_THEIR_WRITES)


_SEE_THEIR_WRITES = frozenset({SERVICE, CONFIGURATION, REVISION, ROUTE})
"""Kinds whose reconciler has nothing more to do after its own writes. Tested by `tests/unit/api/controllers`."""
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


def _bodies(seen: CacheChange) -> list[Json]:
    return [body for body in (seen.before, seen.after) if body is not None]


def _differs(seen: CacheChange, read: Callable[[Json], object]) -> bool:
    """Whether an object was created, deleted, or changed in what a reconciler reads of it."""
    return seen.before is None or seen.after is None or read(seen.before) != read(seen.after)


def _owners(seen: CacheChange) -> Iterator[ObjectKey]:
    for body in _bodies(seen):
        yield from _owner(seen.key, body)


def _owner(key: ObjectKey, body: Json) -> Iterator[ObjectKey]:
    owner = objects.controller_of(body)
    resource = _OWNERS.get((owner["kind"], owner["apiVersion"])) if owner else None
    if owner and resource:
        yield (resource, key[1], owner["name"])
    elif key[0] in (CONFIGURATION, ROUTE):
        # It may have the name that a Service needs without belonging to that Service.
        yield (SERVICE, *key[1:])


def _of_configuration(seen: CacheChange, cache: Cache) -> Iterator[ObjectKey]:
    _, namespace, name = seen.key
    if _differs(seen, route.read_of_configuration):
        for each in cache.routes_naming(namespace, "configuration", name):
            yield (ROUTE, namespace, each)
    if _differs(seen, _latest):
        yield from _existing(namespace, {_latest(body) for body in _bodies(seen)}, cache)


def _of_revision(seen: CacheChange, cache: Cache) -> Iterator[ObjectKey]:
    _, namespace, name = seen.key
    # A Route that waits for the instances of a Revision is not in the annotation of the Revision yet.
    naming = cache.routes_naming(namespace, "revision", name)
    differs, scaled = _differs(seen, route.read_of_revision), _differs(seen, _scale)
    if not differs and not scaled:
        return
    for each in naming.union(*(objects.routes_named(body) for body in _bodies(seen))):
        body = cache.get(ROUTE, namespace, each)
        moves = body is not None and route.is_moving(body)
        # A Route that does not name the Revision may get traffic to it from the Configuration.
        if moves or (differs and (each in naming or body is None or _is_latest_ready(seen, cache))):
            yield (ROUTE, namespace, each)


def _is_latest_ready(seen: CacheChange, cache: Cache) -> bool:
    owners = [owner for body in _bodies(seen) if (owner := objects.controller_of(body))]
    parents = [cache.get(CONFIGURATION, seen.key[1], owner["name"]) or _NOTHING for owner in owners]
    return any(objects.status(body).get("latestReadyRevisionName") == seen.key[2] for body in parents)


def _of_route(seen: CacheChange, cache: Cache) -> Iterator[ObjectKey]:
    _, namespace, name = seen.key
    named = {target for body in _bodies(seen) for target in named_by(body)}
    configurations = _configurations(named, cache)
    leads = seen.after is not None and not objects.deleting(seen.after)
    leads_to = _configurations(named_by(seen.after), cache) if seen.after is not None and leads else set()
    for each in configurations:
        body = cache.get(CONFIGURATION, namespace, each)
        if body is not None and (name in objects.routes_named(body)) != (each in leads_to):
            yield (CONFIGURATION, namespace, each)
    if _differs(seen, route_labeler.read_of_route):
        revisions = {target for _, kind, target in named if kind == "revision"}
        latest = {_latest(cache.get(CONFIGURATION, namespace, each) or _NOTHING) for each in configurations}
        moves = any(route.is_moving(body) for body in _bodies(seen))
        for each in revisions | latest | cache.revisions_of_route(namespace, name):
            body = cache.get(REVISION, namespace, each)
            if body is not None and (moves or not _is_labelled(body, seen.after, cache)):
                yield (REVISION, namespace, each)


def _is_labelled(revision: Json, route_body: Json | None, cache: Cache) -> bool:
    owner = objects.controller_of(revision)
    configuration = cache.get(CONFIGURATION, revision["metadata"]["namespace"], owner["name"]) if owner else None
    return route_body is not None and route_labeler.shows(revision, route_body, configuration)


def _configurations(named: Iterable[TrafficReference], cache: Cache) -> set[str]:
    """Names of the Configurations that a Route names, itself or by a Revision."""
    names = set()
    for namespace, kind, target in named:
        revision = cache.get(REVISION, namespace, target) if kind == "revision" else None
        owner = objects.controller_of(revision) if revision is not None else None
        if kind == "configuration":
            names.add(target)
        elif owner is not None:
            names.add(str(owner["name"]))
    return names


def _existing(namespace: str, revisions: Iterable[str], cache: Cache) -> Iterator[ObjectKey]:
    for name in revisions:
        if cache.get(REVISION, namespace, name) is not None:
            yield (REVISION, namespace, name)


def _latest(configuration_body: Json) -> str:
    return str(objects.status(configuration_body).get("latestCreatedRevisionName", ""))


def _scale(revision: Json) -> object:
    return objects.status(revision).get("actualReplicas")


_NOTHING: Json = {"metadata": {}, "spec": {}}
_OWNERS = {(kind.kind, kind.api_version): kind.id for kind in kinds.KINDS if kind.id in RECONCILED}
