"""The traffic split of a Service as written on the command line. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from knoll.values import labels
from knoll.values.errors import BadRequestError

LATEST = ("latest", "@latest")
TrafficJson = dict[str, Any]


def parse(assignments: Sequence[str]) -> dict[str, int]:
    """Parse `v1=90 v2=10` into percent by name. Raises: BadRequestError."""
    shares: dict[str, int] = {}
    for word in assignments:
        name, _, percent = word.partition("=")
        number = percent.removesuffix("%")
        if not name or not number.isascii() or not number.isdigit():
            raise BadRequestError(f"{word!r} is not of the form REVISION=PERCENT, such as v1=90")
        if name in shares:
            raise BadRequestError(f"{name} is given twice")
        shares[name] = int(number)
    if sum(shares.values()) != 100:
        raise BadRequestError(f"percentages add up to {sum(shares.values())}, expected 100")
    return shares


def split(
    service: str, shares: Mapping[str, int], revisions: Sequence[str], before: Sequence[TrafficJson]
) -> list[TrafficJson]:
    """Return the `spec.traffic` that gives each name its share. Tags keep their targets, with 0 percent.

    Args:
        shares: percent by name of a Revision, the part of it after `SERVICE-`, a tag, or `latest`.
        revisions: names of the Service's Revisions.
        before: the current `spec.traffic`.

    Raises: BadRequestError when there is no such Revision.
    """
    after = [{**target, "percent": 0} for target in before if target.get("tag")]
    for name, percent in shares.items():
        reference = _reference(service, name, revisions, before)
        key = "revisionName" if "revisionName" in reference else "latestRevision"
        same = next((target for target in after if target.get(key) == reference[key] and not target["percent"]), None)
        if same:
            same["percent"] = percent
        else:
            after.append({**reference, "percent": percent})
    return after


def _reference(service: str, name: str, revisions: Sequence[str], before: Sequence[TrafficJson]) -> TrafficJson:
    for candidate in (name, f"{service}-{name}"):
        if candidate in revisions:
            return {"revisionName": candidate}
    for target in before:
        if target.get("tag") == name:
            return {key: target[key] for key in ("revisionName", "latestRevision") if target.get(key)}
    if name in LATEST:
        return {"latestRevision": True}
    available = ", ".join(revisions) or "none"
    raise BadRequestError(f"Service {service} has no revision or tag {name!r}; its revisions: {available}")


def previous_revision(revisions: Sequence[Mapping[str, Any]], serving: str) -> str:
    """Return the newest Revision that is older than the serving one and has not failed.

    Raises: BadRequestError when there is none.
    """
    ordered = sorted(revisions, key=_generation)
    names = [revision["metadata"]["name"] for revision in ordered]
    if serving not in names:
        raise BadRequestError(f"the serving revision {serving} no longer exists; pass --to")
    for revision in reversed(ordered[: names.index(serving)]):
        conditions = revision.get("status", {}).get("conditions", [])
        if not any(condition["type"] == "Ready" and condition["status"] == "False" for condition in conditions):
            return str(revision["metadata"]["name"])
    raise BadRequestError(f"no ready revision before {serving}; pass --to")


def _generation(revision: Mapping[str, Any]) -> int:
    return int(revision["metadata"].get("labels", {}).get(labels.CONFIGURATION_GENERATION, 0))


def largest_share(traffic: Sequence[TrafficJson]) -> str:
    """Return the Revision with the largest share of `status.traffic`; empty when there is none."""
    largest = max(traffic, key=lambda target: target.get("percent") or 0, default={})
    return str(largest.get("revisionName", ""))


def by_revision(traffic: Sequence[TrafficJson]) -> dict[str, int]:
    """Return the percent of each Revision in `status.traffic`."""
    shares: dict[str, int] = {}
    for target in traffic:
        name = str(target.get("revisionName", ""))
        shares[name] = shares.get(name, 0) + (target.get("percent") or 0)
    return shares
