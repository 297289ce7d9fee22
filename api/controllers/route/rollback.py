"""Automatic rollback: a new Revision that performs worse gives its traffic back to the last good one. Pure.

The autoscaler, which receives the metrics of all requests, compares the two and publishes the verdict in the scale
table; the Route acts on it. Trials and rollbacks are stored as JSON in the annotation `knoll.dev/rollback` of the
Route's status. A Revision that was rolled back gets no traffic until another one becomes the latest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from api.controllers.reconciler import objects
from api.controllers.route.traffic import RouteTarget, is_servable
from knoll.resources.annotations.rollback import RollbackPolicy, parse_policy
from knoll.values import labels as well_known
from knoll.values.json import Json


class Trial(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The trial of a latest target's newest Revision, or its rollback."""

    configuration: str
    revision: str
    good: str
    """The Revision that gets the traffic back."""
    tag: str = ""
    until: float = 0.0
    """Epoch seconds at which the trial ends; 0 while traffic is still moving."""
    why: str = ""
    """Why the Revision was rolled back; empty during the trial."""


@dataclass(frozen=True, slots=True)
class RollbackDecision:
    """The targets after rollbacks."""

    targets: tuple[RouteTarget, ...]
    trials: tuple[Trial, ...] = ()
    rolled_back: tuple[Trial, ...] = ()
    """Those of `trials` that are rolled back now."""
    requeue_after: float | None = None


def evaluate(
    targets: Sequence[RouteTarget], route: Json, revisions: Mapping[str, Json], verdicts: Mapping[str, str], now: float
) -> RollbackDecision:
    """Return which Revision each latest target gets.

    Args:
        targets: the targets of the spec, each latest target with its newest ready Revision.
        route: with its previous status.
        revisions: by name, the existing ones of `targets`, of the status and of its trials.
        verdicts: by name of the Revision, why it performs worse than its predecessor.
        now: epoch seconds.
    """
    previous = {(trial.configuration, trial.tag): trial for trial in trials_of(route)}
    result: list[RouteTarget] = []
    trials: list[Trial] = []
    rolled_back: list[Trial] = []
    for target in targets:
        trial = _trial(target, previous.get((target.configuration, target.tag)), route, revisions, now)
        if trial and not trial.why and verdicts.get(target.revision):
            trial = msgspec.structs.replace(trial, why=verdicts[target.revision], until=0.0)
            rolled_back.append(trial)
        if trial:
            trials.append(trial)
        back = trial is not None and bool(trial.why)
        result.append(replace(target, revision=trial.good, at_once=True) if trial and back else target)
    waits = [trial.until - now for trial in trials if trial.until]
    return RollbackDecision(tuple(result), tuple(trials), tuple(rolled_back), max(min(waits), 0.0) if waits else None)


def trials_of(route: Json) -> list[Trial]:
    """The trials in the status."""
    text = (objects.status(route).get("annotations") or {}).get(well_known.ROLLBACK)
    return msgspec.json.decode(text, type=list[Trial]) if text else []


def encode_trials(trials: Sequence[Trial]) -> str:
    return msgspec.json.encode(list(trials)).decode()


def policy_of(revision: Json | None) -> RollbackPolicy | None:
    """The rollback policy of a Revision; None if it has none."""
    text = objects.annotations(revision).get(well_known.ROLLBACK_ON) if revision else None
    try:
        return parse_policy(text) if text else None
    except ValueError:
        return None  # validation rejects such policies


def _trial(
    target: RouteTarget, previous: Trial | None, route: Json, revisions: Mapping[str, Json], now: float
) -> Trial | None:
    if not target.latest:
        return None
    newest, policy = target.revision, policy_of(revisions.get(target.revision))
    shown = _shown(route, target)
    if previous and previous.revision == newest:
        if policy is None or previous.good not in revisions or not is_servable(revisions[previous.good]):
            return None
        if previous.why or not previous.until:
            done = not previous.why and shown == [newest]
            return msgspec.structs.replace(previous, until=now + policy.window_seconds) if done else previous
        return previous if now < previous.until else None
    # A Revision that was itself on trial, or rolled back, is the last choice.
    unproven = previous.revision if previous else ""
    others = [name for name in reversed(shown) if name not in (newest, unproven)]
    good = next((name for name in [previous.good if previous else "", *others, unproven] if name), "")
    if policy is None or newest in shown or good in ("", newest):
        return None
    if good not in revisions or not is_servable(revisions[good]):
        return None
    return Trial(target.configuration, newest, good, target.tag)


def _shown(route: Json, target: RouteTarget) -> list[str]:
    """Revisions with a share of a latest target in the status, oldest first."""
    return [
        entry["revisionName"]
        for entry in objects.status(route).get("traffic") or ()
        if entry.get("latestRevision") and entry.get("tag", "") == target.tag and entry.get("percent")
    ]
