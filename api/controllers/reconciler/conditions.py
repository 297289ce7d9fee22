"""From what reconcilers conclude to the conditions of a status, by `knoll.resources.conditions`. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from api.controllers.reconciler import objects
from knoll.resources.conditions import FALSE, NEW_GENERATION, SETS, TRUE, UNKNOWN, Conditions
from knoll.resources.models.meta import Condition
from knoll.values.json import Json
from knoll.values.kinds import Kind

INGRESS_READY = "IngressReady"
NOT_OWNED, DOMAIN_CONFLICT = "NotOwned", "DomainConflict"
REFUSED = frozenset({NOT_OWNED, DOMAIN_CONFLICT})
"""Reasons of a Route's IngressReady: another object has one of its names, or one of its hosts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is concluded about one condition."""

    status: Literal["True", "False", "Unknown"] = UNKNOWN
    reason: str = ""
    message: str = ""


YES = Verdict(TRUE)
WAIT = Verdict(UNKNOWN)


def merged(kind: Kind, body: Json, verdicts: Mapping[str, Verdict], now: float) -> list[Json]:
    """The conditions of the new status, as in JSON.

    Args:
        body: the object; conditions that it has already and that did not change keep their times.
        verdicts: by type.
    """
    old: list[Json] = objects.status(body).get("conditions") or []
    if _says(old, verdicts):
        # Most looks change nothing; this is a tenth of what the rest costs.
        return old
    updated = Conditions(SETS[kind.id], _read(body), now).initialized()
    for type_, verdict in verdicts.items():
        match verdict.status:
            case "True":
                updated = updated.mark_true(type_, verdict.reason, verdict.message)
            case "False":
                updated = updated.mark_false(type_, verdict.reason, verdict.message)
            case _:
                updated = updated.mark_unknown(type_, verdict.reason, verdict.message)
    return as_json(updated)


def _says(old: Sequence[Json], verdicts: Mapping[str, Verdict]) -> bool:
    """Whether the conditions are those of the verdicts already, their sum included."""
    by_type = {item["type"]: item for item in old}
    ready = by_type.get("Ready")
    return (
        ready is not None
        and ready.get("reason") != NEW_GENERATION
        and all(
            type_ in by_type
            and by_type[type_]["status"] == verdict.status
            and by_type[type_].get("reason", "") == verdict.reason
            and by_type[type_].get("message", "") == verdict.message
            for type_, verdict in verdicts.items()
        )
    )


def unobserved(kind: Kind, body: Json, now: float) -> list[Json]:
    """The conditions of an object whose newest generation nothing came of yet."""
    return as_json(Conditions(SETS[kind.id], _read(body), now).new_generation())


def as_json(conditions: Conditions) -> list[Json]:
    return [
        item.model_dump(by_alias=True, exclude_defaults=True) | {"status": item.status} for item in conditions.items
    ]


def verdict_of(body: Json, type_: str = "Ready") -> Verdict:
    """A condition that an object has; Unknown when it has none."""
    condition = objects.condition(body, type_)
    return (
        Verdict(condition["status"], condition.get("reason", ""), condition.get("message", "")) if condition else WAIT
    )


def _read(body: Json) -> tuple[Condition, ...]:
    return tuple(Condition.model_validate(item) for item in objects.status(body).get("conditions") or ())


__all__ = [
    "DOMAIN_CONFLICT", "FALSE", "INGRESS_READY", "NOT_OWNED", "REFUSED", "TRUE", "UNKNOWN", "WAIT", "YES", "Verdict",
    "merged", "unobserved", "verdict_of",
]  # fmt: skip
