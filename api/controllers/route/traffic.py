"""Resolves the traffic targets of a Route to Revisions, and makes the routing entry and the status from them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from api.controllers.reconciler import objects
from api.controllers.reconciler.conditions import FALSE, UNKNOWN, YES, Verdict
from api.controllers.route import hosts
from api.controllers.route.hosts import Naming
from knoll.messages.routing import RequestPolicy, RouteEntry, Share
from knoll.values import labels as well_known
from knoll.values.json import Json

SESSION_AFFINITY = "knoll.dev/session-affinity"
"""Annotation of a Service or Route: `true` keeps each client on the Revision that it got first."""


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """One entry of `status.traffic`: a target with its Revision resolved."""

    revision: str
    """Name, in the Route's namespace."""
    percent: int
    tag: str = ""
    latest: bool = False
    configuration: str = ""
    """The Configuration that a latest target follows."""
    at_once: bool = False
    """Whether the target gets its share without steps and without waiting for instances."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the traffic of a Route goes."""

    targets: tuple[RouteTarget, ...]
    """In the order of the spec; empty unless all of them can serve."""
    verdict: Verdict
    """AllTrafficAssigned."""


def assign(route: Json, configurations: Mapping[str, Json], revisions: Mapping[str, Json]) -> Assignment:
    """Resolve the Revision of every target.

    Args:
        configurations, revisions: by name, the existing objects that the targets name, and the latest ready Revision
            of each Configuration.
    """
    resolved: list[RouteTarget] = []
    problems: list[Verdict] = []
    for target in route["spec"].get("traffic") or ():
        result = _resolved(route, target, configurations, revisions)
        if isinstance(result, RouteTarget):
            resolved.append(result)
        else:
            problems.append(result)
    total = sum(target.percent for target in resolved)
    if not problems and total != 100:
        message = f"The percentages of the targets add up to {total}, expected 100."
        problems.append(Verdict(FALSE, "InvalidTraffic", message))
    if problems:
        failures = [problem for problem in problems if problem.status == FALSE]
        return Assignment((), (failures or problems)[0])
    return Assignment(merged(resolved), YES)


def merged(targets: Sequence[RouteTarget]) -> tuple[RouteTarget, ...]:
    """Merge targets with equal tag, revision and latestRevision; each keeps the place of its first one."""
    result: dict[tuple[str, str, bool], RouteTarget] = {}
    for target in targets:
        same = (target.tag, target.revision, target.latest)
        earlier = result.get(same)
        result[same] = replace(earlier, percent=earlier.percent + target.percent) if earlier else target
    return tuple(result.values())


def status_of(
    targets: Sequence[RouteTarget], route: Json, naming: Naming, local_tags: frozenset[str] = frozenset()
) -> list[Json]:
    """`status.traffic`."""
    result: list[Json] = []
    for target in targets:
        entry: Json = {
            "revisionName": target.revision,
            "latestRevision": target.latest,
            "percent": target.percent,
        }
        if target.tag:
            entry["tag"] = target.tag
            entry["url"] = hosts.url(route, naming, target.tag, local=target.tag in local_tags)
        result.append(entry)
    return result


def entry_of(
    targets: Sequence[RouteTarget],
    route: Json,
    revisions: Mapping[str, Json],
    naming: Naming,
    local_tags: frozenset[str] = frozenset(),
) -> RouteEntry:
    """The entry of the routing table.

    Args:
        targets: percents sum to 100; every revision is in `revisions`.
        local_tags: tags that are cluster-local.
    """
    namespace = route["metadata"]["namespace"]
    main: dict[str, int] = {}
    tags: dict[str, dict[str, int]] = {}
    for target in targets:
        if target.percent:
            main[target.revision] = main.get(target.revision, 0) + target.percent
        if target.tag:
            of_tag = tags.setdefault(target.tag, {})
            of_tag[target.revision] = of_tag.get(target.revision, 0) + target.percent
    public: dict[str, tuple[Share, ...]] = {}
    local: dict[str, tuple[Share, ...]] = {}
    for tag, weights in {"": main, **tags}.items():
        shares = tuple(Share(f"{namespace}/{revision}", percent, tag) for revision, percent in _whole(weights).items())
        if tag not in local_tags and not hosts.is_local(route, naming):
            public[hosts.public_host(route, naming, tag)] = shares
        local.update(dict.fromkeys(hosts.local_hosts(route, naming, tag), shares))
    named = {target.revision for target in targets}
    planes = {f"{namespace}/{name}": request_policy(revisions[name]) for name in sorted(named)}
    sticky = objects.annotations(route).get(SESSION_AFFINITY, "").lower() == "true"
    return RouteEntry(hosts=public, revisions=planes, local_hosts=local, sticky=sticky)


def with_missing(entry: RouteEntry, revisions: Mapping[str, Json]) -> RouteEntry:
    """The entry of a Route that cannot be resolved: unchanged, but it lists which of its Revisions are deleted."""
    there = {name for name, revision in revisions.items() if not objects.deleting(revision)}
    missing = tuple(path for path in sorted(entry.revisions) if path.partition("/")[2] not in there)
    return msgspec.structs.replace(entry, missing=missing)


def is_servable(revision: Json) -> bool:
    """Whether a Revision can get traffic: it is ready and not being deleted."""
    return objects.is_ready(revision) and not objects.deleting(revision)


def request_policy(revision: Json) -> RequestPolicy:
    """The settings of a Revision that the activator needs."""
    spec = revision["spec"]
    ports = [port for container in spec["containers"] for port in container.get("ports") or ()]
    return RequestPolicy(
        concurrency=int(spec.get("containerConcurrency") or 0),
        timeout=float(spec.get("timeoutSeconds") or 0),
        response_start_timeout=float(spec.get("responseStartTimeoutSeconds") or 0),
        idle_timeout=float(spec.get("idleTimeoutSeconds") or 0),
        h2c=any(port.get("name") == "h2c" for port in ports),
    )


def _whole(weights: Mapping[str, int]) -> dict[str, int]:
    """Weights scaled to sum to 100: a tag's host sends all its requests to the tag's Revisions."""
    total = sum(weights.values())
    if total == 100:
        return {name: weight for name, weight in weights.items() if weight}
    if total == 0:
        last = list(weights)[-1]
        return {last: 100}
    scaled = {name: weight * 100 // total for name, weight in weights.items()}
    first = next(iter(scaled))
    scaled[first] += 100 - sum(scaled.values())
    return {name: percent for name, percent in scaled.items() if percent}


def _resolved(
    route: Json, target: Json, configurations: Mapping[str, Json], revisions: Mapping[str, Json]
) -> RouteTarget | Verdict:
    percent, tag = int(target.get("percent") or 0), str(target.get("tag") or "")
    if target.get("revisionName"):
        name = str(target["revisionName"])
        return _serving(route, name, revisions) or RouteTarget(name, percent, tag)
    name = str(target.get("configurationName") or "")
    configuration = configurations.get(name)
    if configuration is None or objects.deleting(configuration):
        return Verdict(FALSE, "ConfigurationMissing", f'Configuration "{name}" referenced in traffic not found.')
    latest = objects.status(configuration).get("latestReadyRevisionName")
    if not latest:
        failed = objects.observed(configuration) and objects.condition_status(configuration) == FALSE
        if failed:
            return Verdict(FALSE, "RevisionMissing", f'Configuration "{name}" does not have any ready Revision.')
        return Verdict(UNKNOWN, "RevisionMissing", f'Configuration "{name}" is waiting for a Revision to become ready.')
    return _serving(route, latest, revisions) or RouteTarget(latest, percent, tag, latest=True, configuration=name)


def _serving(route: Json, name: str, revisions: Mapping[str, Json]) -> Verdict | None:
    """Why a Revision cannot get traffic; None if it can."""
    revision = revisions.get(name)
    if revision is None or objects.deleting(revision):
        return Verdict(FALSE, "RevisionMissing", f'Revision "{name}" referenced in traffic not found.')
    service = objects.labels(route).get(well_known.SERVICE)
    if service and objects.controller_of(route) and objects.labels(revision).get(well_known.SERVICE) != service:
        message = f'Revision "{name}" referenced in traffic does not belong to Service "{service}".'
        return Verdict(FALSE, "RevisionNotOwned", message)
    if objects.is_ready(revision):
        return None
    if objects.condition_status(revision) == FALSE:
        return Verdict(FALSE, "RevisionMissing", f'Revision "{name}" failed to become ready.')
    return Verdict(UNKNOWN, "RevisionMissing", f'Revision "{name}" is not yet ready.')
