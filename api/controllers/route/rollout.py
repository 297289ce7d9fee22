"""Gradual rollout: a new latest Revision gets one percent first, then equal steps until it has all. Pure.

How far a rollout is shows in `status.traffic` (a latest target is then several entries); its clock is kept as JSON in
the annotation `serving.knative.dev/rollout` of the status. However fast it goes, traffic moves only to instances that
are there: each share waits until the Revision has what the share wants of the present load (see `readiness`). How many
that are stands in the clock too; the Revision is annotated with it, and its autoscaler keeps so many.

Source: Knative Serving, pkg/reconciler/route/traffic/rollout.go (behaviour).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from api.controllers.reconciler import objects
from api.controllers.route import readiness
from api.controllers.route.readiness import RevisionLoad
from api.controllers.route.traffic import Target, is_servable
from knoll.values import labels as well_known
from knoll.values.duration import parse_duration
from knoll.values.json import Json

SHORTEST_STEP = 1.0
"""Seconds between two steps, at least."""

Shares = list[tuple[str, int]]
"""Revision and percent, oldest first; the last is the one that is rolled out."""


class Clock(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The clock of one rollout."""

    configuration: str
    revision: str
    """That is rolled out."""
    tag: str = ""
    start: float = 0.0
    """Epoch seconds at which it got its first percent."""
    next_step: float = 0.0
    """Epoch seconds; 0 until every activator had the first percent."""
    step_seconds: float = 0.0
    step_percent: int = 0
    wants: int = 0
    """Instances that it is to have for the share that comes next."""
    waits_since: float = 0.0
    """Epoch seconds since when that share is held back for want of instances; 0 while it is not."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the traffic of a Route goes at the moment."""

    targets: tuple[Target, ...]
    clocks: tuple[Clock, ...] = ()
    """Of rollouts that are not over."""
    requeue_after: float | None = None


def duration_of(route: Json, default: float) -> float:
    """Seconds over which a Route's rollouts go; 0 is at once."""
    _, text = well_known.find_annotation(objects.annotations(route), well_known.ROLLOUT_DURATION)
    if text is None:
        return default
    try:
        return max(float(parse_duration(text)), 0.0)
    except ValueError:
        return default


def advance(
    targets: Sequence[Target],
    route: Json,
    revisions: Mapping[str, Json],
    duration: float,
    acknowledged: bool,
    now: float,
    loads: Mapping[str, RevisionLoad] = MappingProxyType({}),
) -> Progress:
    """Say what share old and new Revisions have now.

    Args:
        targets: what the spec wants, each latest target with its newest ready Revision.
        route: with the status of the last time.
        revisions: by name, those of `targets` and of the status as far as they exist.
        duration: seconds for a whole rollout.
        acknowledged: every activator acts on what `route`'s status says.
        now: epoch seconds.
        loads: how Revisions stand, by name.
    """
    clocks = {(clock.configuration, clock.tag): clock for clock in clocks_of(route)}
    result: list[Target] = []
    running: list[Clock] = []
    for target in targets:
        shares, clock = [(target.revision, target.percent)], None
        if target.latest and not target.at_once:
            before = _adjusted(_shown(route, target, revisions), target.percent)
            previous = clocks.get((target.configuration, target.tag))
            if duration > 0:
                shares, clock = _stepped(target, before, previous, duration, acknowledged, now)
            shares, clock = _held(target, before, shares, previous, clock, loads, now)
        result += [replace(target, revision=revision, percent=percent) for revision, percent in shares]
        if clock:
            running.append(clock)
    # Without the acknowledgements there is no next step: they wake who waits for them.
    waits = [clock.next_step - now for clock in running if clock.next_step and acknowledged and not clock.waits_since]
    # Nobody tells a Route that the load is another: what waits for instances is looked at again now and then.
    waits += [
        min(clock.waits_since + readiness.WAIT_SECONDS - now, readiness.LOOK_SECONDS)
        for clock in running
        if clock.waits_since
    ]
    return Progress(tuple(result), tuple(running), max(min(waits), 0.0) if waits else None)


def clocks_of(route: Json) -> list[Clock]:
    """The clocks that the last time left in the status."""
    text = (objects.status(route).get("annotations") or {}).get(well_known.ROLLOUT_IN_PROGRESS)
    return msgspec.json.decode(text, type=list[Clock]) if text else []


def encode_clocks(clocks: Sequence[Clock]) -> str:
    return msgspec.json.encode(list(clocks)).decode()


def _stepped(
    target: Target, before: Shares, previous: Clock | None, duration: float, acknowledged: bool, now: float
) -> tuple[Shares, Clock | None]:
    newest, total = target.revision, target.percent
    whole = [(newest, total)]
    names = [name for name, _ in before]
    if total <= 1 or not before or names == [newest] or newest in names[:-1]:
        # The first Revision, nothing to share, nothing new; or back to one that is being left: at once.
        return whole, None
    if names[-1] != newest:
        return _begun(before, newest), Clock(target.configuration, newest, target.tag, start=now)
    if previous is None or previous.revision != newest:
        return before, Clock(target.configuration, newest, target.tag, start=now)
    if not acknowledged:
        return before, previous
    if not previous.next_step:
        steps = max(1, min(int(duration / max(now - previous.start, SHORTEST_STEP)), total - 1))
        size = -(-(total - 1) // steps)
        return before, _set(previous, now + duration / steps, duration / steps, size)
    if now < previous.next_step:
        return before, previous
    shares = _shifted(before, previous.step_percent)
    if len(shares) == 1:
        return whole, None
    return shares, _set(previous, now + previous.step_seconds, previous.step_seconds, previous.step_percent)


def _held(
    target: Target,
    before: Shares,
    after: Shares,
    previous: Clock | None,
    clock: Clock | None,
    loads: Mapping[str, RevisionLoad],
    now: float,
) -> tuple[Shares, Clock | None]:
    """The shares held back as they were, while the newest has too few instances for what it would get.

    Args:
        after, clock: what it would be if there were instances enough.
    """
    newest, share = after[-1]
    names = [name for name, _ in before]
    if not before or newest in names[:-1]:
        return after, clock
    grows = share > dict(before).get(newest, 0)
    previous = previous if previous and previous.revision == newest else None
    if grows:
        want = readiness.instances_needed(newest, names, share / target.percent, loads)
        ready = loads[newest].ready if newest in loads else 0
        since = (previous.waits_since if previous else 0.0) or now
        if ready < want and now - since < readiness.WAIT_SECONDS:
            waiting = previous or Clock(target.configuration, newest, target.tag, start=now)
            return before, msgspec.structs.replace(waiting, wants=want, waits_since=since)
    if clock is None:
        return after, None
    # What the next share wants starts now, so that it is there when its time has come.
    coming = min(share + max(clock.step_percent, 1), target.percent)
    wants = readiness.instances_needed(newest, names, coming / target.percent, loads)
    return after, msgspec.structs.replace(clock, wants=wants, waits_since=0.0)


def _set(clock: Clock, next_step: float, seconds: float, percent: int) -> Clock:
    return msgspec.structs.replace(clock, next_step=next_step, step_seconds=seconds, step_percent=percent)


def _shown(route: Json, target: Target, revisions: Mapping[str, Json]) -> Shares:
    """What the status says of a latest target, oldest first, as far as it can still be served."""
    entries = objects.status(route).get("traffic") or ()
    return [
        (entry["revisionName"], int(entry.get("percent") or 0))
        for entry in entries
        if entry.get("latestRevision")
        and entry.get("tag", "") == target.tag
        and entry.get("percent")
        and entry["revisionName"] in revisions
        and is_servable(revisions[entry["revisionName"]])
    ]


def _adjusted(shares: Shares, total: int) -> Shares:
    """Shares brought to a sum: more goes to the newest, less comes off the oldest."""
    if not shares:
        return []
    difference = total - sum(percent for _, percent in shares)
    if difference >= 0:
        return [*shares[:-1], (shares[-1][0], shares[-1][1] + difference)]
    return _reduced(shares, -difference)


def _begun(before: Shares, newest: str) -> Shares:
    """The newest gets one percent from the one that was the newest until now."""
    last, percent = before[-1]
    kept = [*before[:-1], (last, percent - 1)] if percent > 1 else before[:-1]
    return [*kept, (newest, 1)]


def _shifted(shares: Shares, step: int) -> Shares:
    *older, (newest, percent) = shares
    moved = min(step, sum(share for _, share in older))
    return [*_reduced(older, moved), (newest, percent + moved)]


def _reduced(shares: Shares, less: int) -> Shares:
    result: Shares = []
    for name, percent in shares:
        taken = min(percent, less)
        less -= taken
        if percent > taken:
            result.append((name, percent - taken))
    return result
