"""Gradual rollout: a new latest Revision first gets one percent, then equal steps until it has everything. Pure.

`status.traffic` shows the progress of a rollout: a latest target then has several entries. The rollout's clock is kept
as JSON in the annotation `serving.knative.dev/rollout` of the status. Traffic moves only to instances that are ready:
a step is held until the Revision has enough of them for its share of the current load (see `rollout_instances`). The
clock also says how many instances that takes; the Revision is annotated with this number, and its autoscaler runs as
many.

`rollout_states` has the states of a rollout and the table of their transitions.

Source: Knative Serving, pkg/reconciler/route/traffic/rollout.go (behaviour).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from api.controllers.reconciler import objects
from api.controllers.route import rollout_instances
from api.controllers.route.rollout_instances import RevisionLoad
from api.controllers.route.rollout_states import RolloutEvent, RolloutState
from api.controllers.route.traffic import RouteTarget, is_servable
from knoll.values import labels as well_known
from knoll.values.duration import parse_duration
from knoll.values.json import Json

SHORTEST_STEP = 1.0
"""Shortest time between two steps, in seconds."""

Shares = list[tuple[str, int]]
"""Revision and percent, oldest first; the last Revision is the one being rolled out."""


class RolloutClock(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The clock of one rollout."""

    configuration: str
    revision: str
    """The Revision being rolled out."""
    tag: str = ""
    start: float = 0.0
    """Epoch seconds at which the Revision got its first percent."""
    next_step: float = 0.0
    """Epoch seconds; 0 until every activator has acknowledged the first percent."""
    step_seconds: float = 0.0
    step_percent: int = 0
    wants: int = 0
    """Instances that the Revision needs for its next share."""
    waits_since: float = 0.0
    """Epoch seconds at which that share was first held for lack of ready instances; 0 if it is not held."""


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """Where the traffic of a Route goes now."""

    targets: tuple[RouteTarget, ...]
    clocks: tuple[RolloutClock, ...] = ()
    """Of the rollouts in progress."""
    requeue_after: float | None = None


def duration_of(route: Json, default: float) -> float:
    """How long a rollout of a Route takes, in seconds; 0 moves all traffic at once."""
    _, text = well_known.find_annotation(objects.annotations(route), well_known.ROLLOUT_DURATION)
    if text is None:
        return default
    try:
        return max(float(parse_duration(text)), 0.0)
    except ValueError:
        return default


def advance(
    targets: Sequence[RouteTarget],
    route: Json,
    revisions: Mapping[str, Json],
    duration: float,
    acknowledged: bool,
    now: float,
    loads: Mapping[str, RevisionLoad] = MappingProxyType({}),
) -> RolloutProgress:
    """Return the shares that old and new Revisions have now.

    Args:
        targets: the targets of the spec, each latest target with its newest ready Revision.
        route: with its previous status.
        revisions: by name, the existing ones of `targets` and of the status.
        duration: seconds for a whole rollout.
        acknowledged: whether every activator routes as the status of `route` says.
        now: epoch seconds.
        loads: by name of the Revision.
    """
    clocks = {(clock.configuration, clock.tag): clock for clock in clocks_of(route)}
    result: list[RouteTarget] = []
    running: list[RolloutClock] = []
    for target in targets:
        shares, clock = [(target.revision, target.percent)], None
        if target.latest and not target.at_once:
            before = _adjusted(_shown(route, target, revisions), target.percent)
            previous = clocks.get((target.configuration, target.tag))
            if previous and previous.revision != target.revision:
                previous = None
            taken = step(target, before, previous, duration, acknowledged, loads, now)
            shares, clock = taken.shares, taken.clock
        result += [replace(target, revision=revision, percent=percent) for revision, percent in shares]
        if clock:
            running.append(clock)
    # Without all acknowledgements no step is due; each of them causes another reconciliation.
    waits = [clock.next_step - now for clock in running if clock.next_step and acknowledged and not clock.waits_since]
    # Changes of the load do not cause a reconciliation, so a held rollout checks it at intervals.
    waits += [
        min(clock.waits_since + rollout_instances.WAIT_SECONDS - now, rollout_instances.CHECK_SECONDS)
        for clock in running
        if clock.waits_since
    ]
    return RolloutProgress(tuple(result), tuple(running), max(min(waits), 0.0) if waits else None)


def clocks_of(route: Json) -> list[RolloutClock]:
    """The clocks in the status."""
    text = (objects.status(route).get("annotations") or {}).get(well_known.ROLLOUT_IN_PROGRESS)
    return msgspec.json.decode(text, type=list[RolloutClock]) if text else []


def encode_clocks(clocks: Sequence[RolloutClock]) -> str:
    return msgspec.json.encode(list(clocks)).decode()


def state_of(clock: RolloutClock | None) -> RolloutState:
    """The state of a rollout, derived from its clock."""
    if clock is None:
        return RolloutState.NONE
    if clock.waits_since:
        return RolloutState.HELD if clock.next_step else RolloutState.HELD_BEFORE_START
    return RolloutState.STEPPING if clock.next_step else RolloutState.STARTED


@dataclass(frozen=True, slots=True)
class Step:
    """What one reconciliation does to a rollout."""

    event: RolloutEvent
    shares: Shares
    clock: RolloutClock | None
    """In the state that follows `event`."""


def step(
    target: RouteTarget,
    before: Shares,
    clock: RolloutClock | None,
    duration: float,
    acknowledged: bool,
    loads: Mapping[str, RevisionLoad],
    now: float,
) -> Step:
    """Advance the rollout of one latest target, or hold it if its Revision has too few ready instances.

    Args:
        before: the present shares; they sum to the target's percent, or are empty.
        clock: of the rollout of the target's Revision; None if there is none.
        duration, acknowledged, loads, now: as for `advance`.
    """
    due = _due(target, before, clock, duration, acknowledged, now)
    newest, share = due.shares[-1]
    names = [name for name, _ in before]
    if not before or newest in names[:-1]:
        return due
    if share > dict(before).get(newest, 0):
        needed = rollout_instances.instances_needed(newest, names, share / target.percent, loads)
        ready = loads[newest].ready if newest in loads else 0
        since = (clock.waits_since if clock else 0.0) or now
        if ready < needed and now - since < rollout_instances.WAIT_SECONDS:
            held = clock or RolloutClock(target.configuration, newest, target.tag, start=now)
            return Step(RolloutEvent.HOLD, before, msgspec.structs.replace(held, wants=needed, waits_since=since))
    if due.clock is None:
        return due
    # The instances for the next share start now, so that they are ready when it is due.
    next_share = min(share + max(due.clock.step_percent, 1), target.percent)
    needed = rollout_instances.instances_needed(newest, names, next_share / target.percent, loads)
    return replace(due, clock=msgspec.structs.replace(due.clock, wants=needed, waits_since=0.0))


def _due(
    target: RouteTarget, before: Shares, clock: RolloutClock | None, duration: float, acknowledged: bool, now: float
) -> Step:
    """The step that is due if the Revision has enough ready instances for it."""
    newest, total = target.revision, target.percent
    finish = Step(RolloutEvent.FINISH, [(newest, total)], None)
    names = [name for name, _ in before]
    if duration <= 0 or total <= 1 or not before or names == [newest] or newest in names[:-1]:
        # No gradual rollout, the first Revision, nothing to share, nothing new, or back to a Revision that is being
        # replaced.
        return finish
    if names[-1] != newest:
        return Step(
            RolloutEvent.BEGIN,
            _begun(before, newest),
            RolloutClock(target.configuration, newest, target.tag, start=now),
        )
    if clock is None:
        return Step(RolloutEvent.BEGIN, before, RolloutClock(target.configuration, newest, target.tag, start=now))
    if not acknowledged:
        return Step(RolloutEvent.WAIT, before, clock)
    if not clock.next_step:
        steps = max(1, min(int(duration / max(now - clock.start, SHORTEST_STEP)), total - 1))
        size = -(-(total - 1) // steps)
        return Step(RolloutEvent.ACKNOWLEDGE, before, _scheduled(clock, now, duration / steps, size))
    if now < clock.next_step:
        return Step(RolloutEvent.WAIT, before, clock)
    shares = _shifted(before, clock.step_percent)
    if len(shares) == 1:
        return finish
    return Step(RolloutEvent.STEP, shares, _scheduled(clock, now, clock.step_seconds, clock.step_percent))


def _scheduled(clock: RolloutClock, now: float, seconds: float, percent: int) -> RolloutClock:
    return msgspec.structs.replace(clock, next_step=now + seconds, step_seconds=seconds, step_percent=percent)


def _shown(route: Json, target: RouteTarget, revisions: Mapping[str, Json]) -> Shares:
    """The shares of a latest target in the status, oldest first, without Revisions that can no longer serve."""
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
    """Shares changed to sum to `total`: the newest Revision gets more, the oldest ones lose."""
    if not shares:
        return []
    difference = total - sum(percent for _, percent in shares)
    if difference >= 0:
        return [*shares[:-1], (shares[-1][0], shares[-1][1] + difference)]
    return _reduced(shares, -difference)


def _begun(before: Shares, newest: str) -> Shares:
    """The newest Revision gets one percent from its predecessor."""
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
