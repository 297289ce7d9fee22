"""Labels a Revision with its routing state and annotates it with the Routes that send traffic to it. Pure.

The autoscaler and the garbage collector read them: a Revision without Routes may scale below its min-scale, and a
Revision that is being rolled out runs the instances that its next share of the traffic needs.
"""

from collections.abc import Mapping, Sequence

from api.controllers.reconciler import objects
from api.controllers.route import rollback, rollout
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.timestamps import timestamp


def labelled(revision: Json, routes: Mapping[str, Json], configuration: Json | None, now: float) -> Json:
    """Return the Revision with up-to-date routing labels; the same object if they are up to date.

    Args:
        routes: by name, every Route of the namespace that concerns the Revision: those whose spec or status names it or
            its Configuration, and those in its annotation.
        configuration: its Configuration; None if it was deleted.
    """
    name = revision["metadata"]["name"]
    naming = {route_name for route_name, route in routes.items() if is_named(route, name, configuration)}
    present = objects.routes_named(revision)
    # A Route that is not settled still serves its previous traffic.
    naming |= {gone for gone in present - naming if gone in routes and not _settled(routes[gone])}
    state = objects.labels(revision).get(well_known.ROUTING_STATE, "")
    desired_state = (
        well_known.ACTIVE
        if naming
        else (state if state in (well_known.PENDING, well_known.RESERVE) else well_known.RESERVE)
    )
    rolled_out = _rollout(name, [routes[naming_it] for naming_it in sorted(naming) if naming_it in routes])
    there = {key: value for key, value in objects.annotations(revision).items() if key in well_known.OF_ROLLOUT}
    if present == naming and state == desired_state and rolled_out == there:
        return revision
    new_annotations = {key: value for key, value in objects.annotations(revision).items() if key not in there}
    new_annotations.update(rolled_out)
    new_annotations.pop(well_known.ROUTES, None)
    if naming:
        new_annotations[well_known.ROUTES] = objects.routes_text(naming)
    if state != desired_state:
        new_annotations[well_known.ROUTING_STATE_MODIFIED] = timestamp(now)
    new_labels = {**objects.labels(revision), well_known.ROUTING_STATE: desired_state}
    return objects.changed(revision, new_labels=new_labels, new_annotations=new_annotations)


def read_of_route(route: Json) -> object:
    """What `labelled` reads of a Route; equal if a change does not affect its Revisions."""
    return (
        objects.deleting(route),
        route["spec"].get("traffic"),
        _revisions(objects.status(route)),
        objects.status(route).get("annotations"),
        _settled(route),
    )


def shows(revision: Json, route: Json, configuration: Json | None) -> bool:
    """Whether a Revision already has the labels for a Route that sends it traffic and whose shares do not move."""
    meta = revision["metadata"]
    return (
        objects.labels(revision).get(well_known.ROUTING_STATE) == well_known.ACTIVE
        and route["metadata"]["name"] in objects.routes_named(revision)
        and is_named(route, meta["name"], configuration)
    )


def _rollout(name: str, routes: Sequence[Json]) -> dict[str, str]:
    """The annotations that tell the autoscaler about the rollout of a Revision."""
    clocks = [clock for route in routes for clock in rollout.clocks_of(route) if clock.revision == name]
    most = max((clock.wants for clock in clocks), default=0)
    trials = [
        trial for route in routes for trial in rollback.trials_of(route) if trial.revision == name and not trial.why
    ]
    rollout_annotations = {well_known.ROLLOUT_SCALE: str(most)} if most else {}
    return rollout_annotations | ({well_known.ROLLOUT_FROM: trials[0].good} if trials else {})


def is_named(route: Json, revision: str, configuration: Json | None) -> bool:
    """Whether a Route sends traffic to a Revision, or will do so when the Revision is ready."""
    if objects.deleting(route):
        return False
    if revision in _revisions(objects.status(route)):
        return True
    spec = route["spec"]
    if revision in _revisions(spec):
        return True
    if configuration is None or objects.status(configuration).get("latestCreatedRevisionName") != revision:
        return False
    if any(trial.why and trial.revision == revision for trial in rollback.trials_of(route)):
        # It was rolled back and gets no traffic again.
        return False
    own = configuration["metadata"]["name"]
    return any(target.get("configurationName") == own for target in spec.get("traffic") or ())


def _revisions(part: Json) -> Sequence[str]:
    return [target["revisionName"] for target in part.get("traffic") or () if target.get("revisionName")]


def _settled(route: Json) -> bool:
    return objects.observed(route) and objects.condition_status(route) != "Unknown"
