"""The placeholder core Services of a Route and its tags: they reserve the names and carry users' labels. Pure."""

from collections.abc import Mapping

from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Action, Create, Delete
from api.controllers.route import hosts
from api.controllers.route.hosts import Naming
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json

GATEWAY = "activator-service.knative-serving.svc.cluster.local"


def needed_names(route: Json, naming: Naming) -> dict[str, str]:
    """Name to tag of the placeholder Services that a Route needs ("" is the Route itself)."""
    tags = ["", *(target["tag"] for target in route["spec"].get("traffic") or () if target.get("tag"))]
    return {hosts.tag_name(route, tag, naming): tag for tag in tags}


def foreign(route: Json, naming: Naming, existing: Mapping[str, Json]) -> str:
    """Name of a core Service that the Route needs but does not own; empty if there is none."""
    for name in needed_names(route, naming):
        if (
            name in existing
            and not objects.is_controlled_by(existing[name], route)
            and not _is_leftover(name, existing, route)
        ):
            return name
    return ""


def leftover(route: Json, naming: Naming, existing: Mapping[str, Json]) -> bool:
    """Whether a placeholder of an earlier Route of this name still exists; the garbage collector will remove it."""
    return any(_is_leftover(name, existing, route) for name in needed_names(route, naming))


def local_tags(route: Json, naming: Naming, existing: Mapping[str, Json]) -> frozenset[str]:
    """Tags, "" included, whose core Service a user labelled cluster-local."""
    return frozenset(
        tag
        for name, tag in needed_names(route, naming).items()
        if name in existing and objects.labels(existing[name]).get(well_known.VISIBILITY) == well_known.CLUSTER_LOCAL
    )


def missing_or_stale(route: Json, naming: Naming, existing: Mapping[str, Json]) -> list[Action]:
    """Create missing placeholders, and update the labels and annotations of the others.

    Keys are added and changed but never removed, whether a user set them or the Route had them.
    """
    actions: list[Action] = []
    route_labels = {key: value for key, value in objects.labels(route).items() if key != well_known.VISIBILITY}
    route_labels[well_known.ROUTE] = route["metadata"]["name"]
    for name in needed_names(route, naming):
        core_service = existing.get(name)
        if core_service is None:
            body = objects.make(
                kinds.CORE_SERVICE, kinds.ROUTE, route, name,
                labels=route_labels, annotations=dict(objects.annotations(route)), spec=_SPEC,
            )  # fmt: skip
            actions.append(Create(kinds.CORE_SERVICE.id, body))
        elif objects.is_controlled_by(core_service, route):
            after = objects.changed(
                core_service,
                new_labels={**objects.labels(core_service), **route_labels},
                new_annotations={**objects.annotations(core_service), **objects.annotations(route)},
            )
            actions += objects.write(kinds.CORE_SERVICE.id, core_service, after)
    return actions


def superfluous(route: Json, naming: Naming, existing: Mapping[str, Json]) -> list[Action]:
    """Delete the placeholders of removed tags."""
    needed = needed_names(route, naming)
    return [
        Delete(kinds.CORE_SERVICE.id, core_service["metadata"]["namespace"], name, core_service["metadata"]["uid"])
        for name, core_service in existing.items()
        if name not in needed and objects.is_controlled_by(core_service, route)
    ]


def _is_leftover(name: str, existing: Mapping[str, Json], route: Json) -> bool:
    return name in existing and objects.is_leftover(existing[name], route)


_SPEC: Json = {
    "type": "ExternalName",
    "externalName": GATEWAY,
    "sessionAffinity": "None",
    "ports": [{"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80}],
}
