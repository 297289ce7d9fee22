"""Turns the verdicts of reconcilers into the conditions of a status, with `knoll.resources.conditions`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from api.controllers.reconciler import objects
from knoll.resources.conditions import FALSE, NEW_GENERATION, SETS, TRUE, UNKNOWN, Conditions, ConditionValues
from knoll.values.json import Json
from knoll.values.kinds import Kind

INGRESS_READY = "IngressReady"
CERTIFICATE_PROVISIONED = "CertificateProvisioned"
NOT_OWNED, DOMAIN_CONFLICT = "NotOwned", "DomainConflict"
REFUSED = frozenset({NOT_OWNED, DOMAIN_CONFLICT})
"""Reasons of a Route's IngressReady: another object owns one of its names or hosts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status, reason and message of one condition."""

    status: Literal["True", "False", "Unknown"] = UNKNOWN
    reason: str = ""
    message: str = ""


YES = Verdict(TRUE)
WAIT = Verdict(UNKNOWN)


def merged(kind: Kind, body: Json, verdicts: Mapping[str, Verdict], now: float) -> list[Json]:
    """Return the conditions of the new status as JSON.

    Args:
        body: the object; its conditions keep their times unless they change.
        verdicts: by type.
    """
    old: list[Json] = objects.status(body).get("conditions") or []
    if _matches(old, verdicts):
        # Most reconciliations change nothing, and this check costs a tenth of what follows.
        return old
    updated = Conditions(SETS[kind.id], _read(body), now).initialized()
    updated = updated.marked((type_, each.status, each.reason, each.message) for type_, each in verdicts.items())
    return as_json(updated)


def _matches(old: Sequence[Json], verdicts: Mapping[str, Verdict]) -> bool:
    """Whether the conditions, including Ready, already match the verdicts."""
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
    """The conditions of an object whose newest generation could not be reconciled yet."""
    return as_json(Conditions(SETS[kind.id], _read(body), now).new_generation())


def as_json(conditions: Conditions) -> list[Json]:
    return [{name: value for name, value in zip(_NAMES, item, strict=True) if value} for item in conditions.items]


_NAMES = ("type", "status", "severity", "lastTransitionTime", "reason", "message")
"""Names in JSON of the fields of `ConditionValues`."""


def verdict_of(body: Json, type_: str = "Ready") -> Verdict:
    """A condition of an object; Unknown if the object does not have it."""
    condition = objects.condition(body, type_)
    return (
        Verdict(condition["status"], condition.get("reason", ""), condition.get("message", "")) if condition else WAIT
    )


def _read(body: Json) -> tuple[ConditionValues, ...]:
    items: Iterable[Json] = objects.status(body).get("conditions") or ()
    return tuple(
        ConditionValues(
            item["type"],
            item["status"],
            item.get("severity", ""),
            item.get("lastTransitionTime", ""),
            item.get("reason", ""),
            item.get("message", ""),
        )
        for item in items
    )


__all__ = [
    "CERTIFICATE_PROVISIONED", "DOMAIN_CONFLICT", "FALSE", "INGRESS_READY", "NOT_OWNED", "REFUSED", "TRUE", "UNKNOWN",
    "WAIT", "YES", "Verdict", "merged", "unobserved", "verdict_of",
]  # fmt: skip
