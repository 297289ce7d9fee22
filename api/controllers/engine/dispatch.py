"""Collects the input of each reconciler from the cluster state, and calls the reconciler. No I/O."""

from collections.abc import Iterable, Mapping, Sequence

from api.controllers.build import build
from api.controllers.engine.cache import Cache
from api.controllers.engine.cluster_state import ClusterState
from api.controllers.engine.watch_mappings import CONFIGURATION, REVISION, ROUTE, SERVICE
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import ObjectKey, ReconcileResult
from api.controllers.revision import revision
from api.controllers.route import domain_claim, domain_mapping, hosts, placeholder_services, rollback, route
from api.controllers.route.rollout_instances import RevisionLoad
from api.controllers.service import configuration, service
from knoll.auth.tenancy import has_tenants
from knoll.config.gc import GCConfig
from knoll.messages.scale import ScaleStatus
from knoll.resources.admission.parsing import parse
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import scaling_spec
from knoll.resources.validation import host_rules
from knoll.values import kinds
from knoll.values.errors import InvalidResourceError
from knoll.values.json import Json


def decide(key: ObjectKey, state: ClusterState, now: float) -> ReconcileResult:
    """Reconcile one object.

    Args:
        now: epoch seconds.
    """
    body = state.cache.get(*key)
    return _removed(key, state) if body is None else decide_on(key[0], body, state, now)


def decide_on(resource: str, body: Json, state: ClusterState, now: float) -> ReconcileResult:
    """Reconcile an object that need not be stored yet.

    Args:
        body: with its uid.
        now: epoch seconds.
    """
    match resource:
        case kinds.SERVICE.id:
            return service.reconcile(_service(body, state), now)
        case kinds.CONFIGURATION.id:
            return configuration.reconcile(_configuration(body, state.cache, state.config.gc), now)
        case kinds.REVISION.id:
            return revision.reconcile(_revision(body, state), now)
        case kinds.ROUTE.id:
            return route.reconcile(_route(body, state), now)
        case kinds.DOMAIN_MAPPING.id:
            return domain_mapping.reconcile(_mapping(body, state), now)
        case kinds.CLUSTER_DOMAIN_CLAIM.id:
            return domain_claim.reconcile(_claim(body, state.cache))
        case kinds.BUILD_KIND.id:
            return build.reconcile(_build(body, state), now)
    raise AssertionError(f"{resource} has no reconciler")


def _removed(key: ObjectKey, state: ClusterState) -> ReconcileResult:
    resource, namespace, name = key
    path = f"{namespace}/{name}"
    match resource:
        case kinds.REVISION.id:
            return revision.removed(namespace, name, state.resolutions.get(path))
        case kinds.ROUTE.id:
            programmed = state.routing.get(path)
            return route.removed(namespace, name, programmed[1] if programmed else None)
        case kinds.DOMAIN_MAPPING.id:
            programmed = state.routing.get(domain_mapping.path_of(namespace, name))
            return domain_mapping.removed(namespace, name, programmed[1] if programmed else None)
        case kinds.BUILD_KIND.id:
            return build.removed(namespace, name, state.builds.get(path))
    return ReconcileResult()


def _service(body: Json, state: ClusterState) -> service.ServiceInputs:
    cache = state.cache
    generation, since = state.shown.get(body["metadata"]["uid"], (0, 0.0))
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    own_name = (body["spec"]["template"].get("metadata") or {}).get("name")
    return service.ServiceInputs(
        body,
        configuration=cache.get(CONFIGURATION, namespace, name),
        route=cache.get(ROUTE, namespace, name),
        named_revision=cache.get(REVISION, namespace, own_name) if own_name else None,
        shown=since if generation == objects.generation(body) else None,
    )


def _configuration(body: Json, cache: Cache, gc: GCConfig) -> configuration.ConfigurationInputs:
    namespace = body["metadata"]["namespace"]
    return configuration.ConfigurationInputs(
        body,
        revisions=cache.owned(body, REVISION),
        namesake=cache.get(REVISION, namespace, configuration.revision_name(body)),
        routes=_routes_to(body, cache),
        gc=gc,
    )


def _routes_to(body: Json, cache: Cache) -> frozenset[str]:
    """Routes that name a Configuration or one of its Revisions."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    route_names = set(cache.routes_naming(namespace, "configuration", name))
    for child in cache.owned(body, REVISION):
        route_names |= cache.routes_naming(namespace, "revision", child["metadata"]["name"])
    routes = ((name, cache.get(ROUTE, namespace, name)) for name in route_names)
    return frozenset(name for name, route in routes if route and not objects.deleting(route))


def _revision(body: Json, state: ClusterState) -> revision.RevisionInputs:
    cache, namespace, name = state.cache, body["metadata"]["namespace"], body["metadata"]["name"]
    owner = objects.controller_of(body)
    parent = cache.get(CONFIGURATION, namespace, owner["name"]) if owner else None
    if owner and parent and parent["metadata"]["uid"] != owner["uid"]:
        parent = None
    names = cache.routes_naming(namespace, "revision", name) | objects.routes_named(body)
    if parent:
        names |= cache.routes_naming(namespace, "configuration", parent["metadata"]["name"])
    path = f"{namespace}/{name}"
    return revision.RevisionInputs(
        body,
        configuration=parent,
        routes=_by_name(cache, ROUTE, namespace, names),
        resolution=state.resolutions.get(path),
        scale=state.scale.get(path),
        log_url=state.config.observability.revision_url_template,
        asked=state.asked.get(body["metadata"]["uid"], 0.0),
    )


def _route(body: Json, state: ClusterState) -> route.RouteInputs:
    cache, namespace = state.cache, body["metadata"]["namespace"]
    targets = body["spec"].get("traffic") or ()
    configurations = _by_name(
        cache, CONFIGURATION, namespace,
        {target["configurationName"] for target in targets if target.get("configurationName")},
    )  # fmt: skip
    names = {target["revisionName"] for target in targets if target.get("revisionName")}
    names |= {objects.status(each).get("latestReadyRevisionName") or "" for each in configurations.values()}
    names |= {target["revisionName"] for target in objects.status(body).get("traffic") or ()}
    names |= {watch.good for watch in rollback.trials_of(body)}
    core = {service["metadata"]["name"]: service for service in cache.owned(body, kinds.CORE_SERVICE.id)}
    core |= _by_name(cache, kinds.CORE_SERVICE.id, namespace, placeholder_services.needed_names(body, state.naming))
    path = objects.path_of(body)
    version, entry = state.routing.get(path, (0, None))
    names |= {revision.partition("/")[2] for revision in entry.revisions} if entry else set()
    revisions = _by_name(cache, REVISION, namespace, names - {""})
    own_hosts = {
        hosts.public_host(body, state.naming, tag)
        for tag in placeholder_services.needed_names(body, state.naming).values()
    }
    return route.RouteInputs(
        body,
        configurations=configurations,
        revisions=revisions,
        core_services=core,
        naming=state.naming,
        rollout_seconds=state.config.network.rollout_duration_seconds,
        programmed=entry,
        rivals={host: claim for host in own_hosts if (claim := state.routing.rival(path, host))},
        followers=state.activators,
        loads=_revision_loads(revisions, state) if len(revisions) > 1 else {},
        worse={name: scale.rollback for name, each in revisions.items() if (scale := _scale(each, state))},
        acknowledged=entry is not None and state.acknowledged.get(path) == version,
    )


def _scale(body: Json, state: ClusterState) -> ScaleStatus | None:
    """The scale status of a Revision, unless it is about an earlier one of that name."""
    scale = state.scale.get(objects.path_of(body))
    return scale if scale is not None and scale.uid == body["metadata"]["uid"] else None


def _revision_loads(revisions: Mapping[str, Json], state: ClusterState) -> dict[str, RevisionLoad]:
    loads = {}
    for name, body in revisions.items():
        scale = _scale(body, state)
        if scale is not None:
            try:
                spec = scaling_spec(parse(Revision, body)[0], state.config)
            except InvalidResourceError:
                continue  # not written through the API; its traffic moves without waiting for instances
            loads[name] = RevisionLoad(scale.by_load, spec.target, spec.metric, scale.actual, spec.max_scale)
    return loads


def _build(body: Json, state: ClusterState) -> build.BuildInputs:
    uid, namespace = body["metadata"]["uid"], body["metadata"]["namespace"]
    places = [place for place in state.cache.names(kinds.BUILD_KIND.id) if place[0] == namespace]
    builds = [other for place in places if (other := state.cache.get(kinds.BUILD_KIND.id, *place))]
    queue, repository = state.build_order, build.repository(body)
    return build.BuildInputs(
        body,
        progress=state.builds.get(objects.path_of(body)),
        asked=state.asked.get(uid, 0.0),
        position=_position(uid, queue, asked=uid in state.asked),
        siblings=[other for other in builds if build.repository(other) == repository],
        most_finished=state.config.gc.max_finished_builds,
    )


def _position(uid: str, queue: Sequence[str], *, asked: bool) -> int:
    """Queue position of a Build: 1 if a builder is taking it, last if it is not queued yet."""
    if uid in queue:
        return queue.index(uid) + 1
    return 1 if asked else len(queue) + 1


def _mapping(body: Json, state: ClusterState) -> domain_mapping.DomainMappingInputs:
    cache, namespace, host = state.cache, body["metadata"]["namespace"], body["metadata"]["name"]
    ref = body["spec"]["ref"]
    kind = ROUTE if ref.get("kind") == "Route" else SERVICE
    others = (cache.get(kinds.DOMAIN_MAPPING.id, other, host) for other in cache.mappings_of_host(host) - {namespace})
    path = domain_mapping.path_of(namespace, host)
    version, entry = state.routing.get(path, (0, None))
    target_entry = state.routing.get(f"{namespace}/{ref.get('name', '')}")
    return domain_mapping.DomainMappingInputs(
        body,
        rivals=[other for other in others if other is not None],
        claim=cache.get(kinds.CLUSTER_DOMAIN_CLAIM.id, "", host),
        claims_itself=_claims_are_made(state),
        unclaimable=_unclaimable(host, namespace, state),
        target=cache.get(kind, namespace, ref.get("name", "")),
        target_entry=target_entry[1] if target_entry else None,
        naming=state.naming,
        programmed=entry,
        followers=state.activators,
        acknowledged=entry is not None and state.acknowledged.get(path) == version,
    )


def _claim(body: Json, cache: Cache) -> domain_claim.DomainClaimInputs:
    mapping = cache.get(kinds.DOMAIN_MAPPING.id, domain_claim.owner(body), body["metadata"]["name"])
    return domain_claim.DomainClaimInputs(body, mapping)


def _claims_are_made(state: ClusterState) -> bool:
    """Whether claims are created for DomainMappings: as config-network sets it; by default, if there are no tenants."""
    configured = state.naming.network.autocreate_cluster_domain_claims
    if configured is not None:
        return configured
    cluster_wide = [name for _, name in state.cache.names(kinds.CLUSTER_ROLE_BINDING.id)]
    return not has_tenants(state.cache.names(kinds.ROLE_BINDING.id), cluster_wide)


def _unclaimable(host: str, namespace: str, state: ClusterState) -> str:
    naming = state.naming
    if host in naming.reserved:
        return "must not be a host of the platform"
    namespaces = {name for _, name in state.cache.names(kinds.NAMESPACE.id)}
    return host_rules.unclaimable(host, naming.domain, naming.network) or host_rules.names_of_namespace(
        host, namespace, namespaces
    )


def routing_path(key: ObjectKey) -> str | None:
    """The field of an object's entry in the routing table; None for kinds without one."""
    match key:
        case (kinds.ROUTE.id, namespace, name):
            return f"{namespace}/{name}"
        case (kinds.DOMAIN_MAPPING.id, namespace, host):
            return domain_mapping.path_of(namespace, host)
    return None


def routing_key(path: str) -> ObjectKey:
    """The object whose entry a field of the routing table holds."""
    namespace, _, name = path.partition("/")
    host = domain_mapping.host_in(name)
    return (ROUTE, namespace, name) if host is None else (kinds.DOMAIN_MAPPING.id, namespace, host)


def _by_name(cache: Cache, resource: str, namespace: str, names: Iterable[str]) -> dict[str, Json]:
    bodies = ((name, cache.get(resource, namespace, name)) for name in names)
    return {name: body for name, body in bodies if body is not None}
