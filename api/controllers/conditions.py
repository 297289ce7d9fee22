"""Conditions of a status: putting new verdicts together with what was there before. Pure.

A verdict is what a reconciler says about one condition now. Ready follows from the others (KNATIVE conventions: any
False makes it False, else any Unknown makes it Unknown, with the reason of the one that changed last).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.controllers import objects
from knoll.store import Json

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition without its time."""

    status: str = UNKNOWN
    reason: str = ""
    message: str = ""
    info: bool = False
    """Severity Info: it does not feed Ready."""


YES = Verdict(TRUE)
WAIT = Verdict(UNKNOWN)


def merged(
    before: Sequence[Json], verdicts: Mapping[str, Verdict], now: float, ready: str | None = "Ready"
) -> list[Json]:
    """The conditions of the new status.

    Args:
        before: conditions of the old status; a condition that did not change keeps its time.
        verdicts: by type, without the condition that sums them up.
        ready: type of the condition that sums them up; None when `verdicts` are all there is.

    Returns:
        Conditions as in JSON, sorted by type.
    """
    old = {found["type"]: found for found in before}
    result = {type_: _timed(type_, verdict, old.get(type_), now) for type_, verdict in verdicts.items()}
    if ready is not None:
        feeding = [found for found in result.values() if found.get("severity", "") == ""]
        result[ready] = _timed(ready, _summed(feeding), old.get(ready), now)
    return [result[type_] for type_ in sorted(result)]


def of(body: Json) -> Sequence[Json]:
    """The conditions an object has now."""
    found: Sequence[Json] = objects.status(body).get("conditions") or ()
    return found


def _summed(feeding: Sequence[Json]) -> Verdict:
    for wanted in (FALSE, UNKNOWN):
        # Most recent first; among equals one that gives a reason, then by name: causes stand before what they cause.
        found = sorted(
            (item for item in feeding if item["status"] == wanted),
            key=lambda item: (-objects.epoch(item["lastTransitionTime"]), not item.get("reason"), item["type"]),
        )
        if found:
            last = found[0]
            return Verdict(wanted, last.get("reason", ""), last.get("message", ""))
    return YES


def _timed(type_: str, verdict: Verdict, before: Json | None, now: float) -> Json:
    found: Json = {"type": type_, "status": verdict.status}
    if verdict.reason:
        found["reason"] = verdict.reason
    if verdict.message:
        found["message"] = verdict.message
    if verdict.info:
        found["severity"] = "Info"
    if before is not None and {**before, "lastTransitionTime": None} == {**found, "lastTransitionTime": None}:
        return {**found, "lastTransitionTime": before["lastTransitionTime"]}
    return {**found, "lastTransitionTime": objects.timestamp(now)}
