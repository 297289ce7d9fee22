"""Automatic rollback: a new Revision that does worse gives its traffic back to the last good one. Pure.

The autoscaler compares (it hears of every request) and says so in the scale table; the Route acts on it. What is being
watched, and what was rolled back, stands as JSON in the annotation `knoll.dev/rollback` of the Route's status: a
Revision that was rolled back stays without traffic until another becomes the latest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from api.controllers.reconciler import objects
from api.controllers.route.traffic import Target, is_servable
from knoll.resources.annotations.rollback import RollbackPolicy, parse_policy
from knoll.values import labels as well_known
from knoll.values.json import Json


class Trial(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One latest target whose newest Revision is on trial, or was found wanting."""

    configuration: str
    revision: str
    good: str
    """The Revision that traffic goes back to."""
    tag: str = ""
    until: float = 0.0
    """Epoch seconds at which the trial ends; 0 while traffic still moves."""
    why: str = ""
    """Why it was rolled back; empty while it is on trial."""


@dataclass(frozen=True, slots=True)
class RollbackDecision:
    """Targets after what is rolled back."""

    targets: tuple[Target, ...]
    trials: tuple[Trial, ...] = ()
    rolled_back: tuple[Trial, ...] = ()
    """Those of `trials` that are rolled back just now."""
    requeue_after: float | None = None


def evaluate(
    targets: Sequence[Target], route: Json, revisions: Mapping[str, Json], verdicts: Mapping[str, str], now: float
) -> RollbackDecision:
    """Say which Revision each latest target really has.

    Args:
        targets: what the spec wants, each latest target with its newest ready Revision.
        route: with the status of the last time.
        revisions: by name, those of `targets`, of the status and of its trials, as far as they exist.
        verdicts: by name of the Revision, why the autoscaler finds it worse than the one before.
        now: epoch seconds.
    """
    previous = {(trial.configuration, trial.tag): trial for trial in trials_of(route)}
    result: list[Target] = []
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
    """What the last time left in the status."""
    text = (objects.status(route).get("annotations") or {}).get(well_known.ROLLBACK)
    return msgspec.json.decode(text, type=list[Trial]) if text else []


def encode_trials(trials: Sequence[Trial]) -> str:
    return msgspec.json.encode(list(trials)).decode()


def policy_of(revision: Json | None) -> RollbackPolicy | None:
    """What a Revision is rolled back on; None when it is not."""
    text = objects.annotations(revision).get(well_known.ROLLBACK_ON) if revision else None
    try:
        return parse_policy(text) if text else None
    except ValueError:
        return None  # validation let none of them in


def _trial(
    target: Target, previous: Trial | None, route: Json, revisions: Mapping[str, Json], now: float
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
    # What was itself on trial, or fell, is not what to go back to.
    unproven = previous.revision if previous else ""
    others = [name for name in reversed(shown) if name not in (newest, unproven)]
    good = next((name for name in [previous.good if previous else "", *others, unproven] if name), "")
    if policy is None or newest in shown or good in ("", newest):
        return None
    if good not in revisions or not is_servable(revisions[good]):
        return None
    return Trial(target.configuration, newest, good, target.tag)


def _shown(route: Json, target: Target) -> list[str]:
    """Revisions that the status gives a share of a latest target, oldest first."""
    return [
        entry["revisionName"]
        for entry in objects.status(route).get("traffic") or ()
        if entry.get("latestRevision") and entry.get("tag", "") == target.tag and entry.get("percent")
    ]
