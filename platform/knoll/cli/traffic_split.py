"""Traffic of a Service as the command line says it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from knoll.values import labels
from knoll.values.errors import BadRequestError

LATEST = ("latest", "@latest")
Target = dict[str, Any]


def parsed(words: Sequence[str]) -> dict[str, int]:
    """`v1=90 v2=10` as a mapping. Raises: BadRequestError."""
    shares: dict[str, int] = {}
    for word in words:
        name, _, percent = word.partition("=")
        number = percent.removesuffix("%")
        if not name or not number.isascii() or not number.isdigit():
            raise BadRequestError(f"{word!r} is not REVISION=PERCENT, such as v1=90")
        if name in shares:
            raise BadRequestError(f"{name} is named twice")
        shares[name] = int(number)
    if sum(shares.values()) != 100:
        raise BadRequestError(f"the percents add up to {sum(shares.values())}, they must to 100")
    return shares


def split(service: str, shares: Mapping[str, int], revisions: Sequence[str], before: Sequence[Target]) -> list[Target]:
    """The traffic of a Service that gives each its share; hosts of tags stay where they lead.

    Args:
        shares: percent by name of a Revision, what follows `SERVICE-` in it, a tag, or `latest`.
        revisions: names of the Service's Revisions.
        before: spec.traffic.

    Raises: BadRequestError when there is no such Revision.
    """
    after = [{**target, "percent": 0} for target in before if target.get("tag")]
    for name, percent in shares.items():
        wanted = _meant(service, name, revisions, before)
        key = "revisionName" if "revisionName" in wanted else "latestRevision"
        same = next((target for target in after if target.get(key) == wanted[key] and not target["percent"]), None)
        if same:
            same["percent"] = percent
        else:
            after.append({**wanted, "percent": percent})
    return after


def _meant(service: str, name: str, revisions: Sequence[str], before: Sequence[Target]) -> Target:
    for candidate in (name, f"{service}-{name}"):
        if candidate in revisions:
            return {"revisionName": candidate}
    for target in before:
        if target.get("tag") == name:
            return {key: target[key] for key in ("revisionName", "latestRevision") if target.get(key)}
    if name in LATEST:
        return {"latestRevision": True}
    there = ", ".join(revisions) or "none"
    raise BadRequestError(f"Service {service} has no revision or tag {name!r}; its revisions: {there}")


def before_that(revisions: Sequence[Mapping[str, Any]], serving: str) -> str:
    """The newest Revision older than the one that serves, of those that are not broken.

    Raises: BadRequestError when there is none.
    """
    ordered = sorted(revisions, key=_generation)
    names = [revision["metadata"]["name"] for revision in ordered]
    if serving not in names:
        raise BadRequestError(f"the revision {serving} that serves is gone; name one with --to")
    for revision in reversed(ordered[: names.index(serving)]):
        conditions = revision.get("status", {}).get("conditions", [])
        if not any(one["type"] == "Ready" and one["status"] == "False" for one in conditions):
            return str(revision["metadata"]["name"])
    raise BadRequestError(f"there is no good revision before {serving}; name one with --to")


def _generation(revision: Mapping[str, Any]) -> int:
    return int(revision["metadata"].get("labels", {}).get(labels.CONFIGURATION_GENERATION, 0))


def most(traffic: Sequence[Target]) -> str:
    """Revision with the largest share, by status.traffic; empty when there is none."""
    found = max(traffic, key=lambda target: target.get("percent") or 0, default={})
    return str(found.get("revisionName", ""))


def by_revision(traffic: Sequence[Target]) -> dict[str, int]:
    """Percent of each Revision, by status.traffic."""
    shares: dict[str, int] = {}
    for target in traffic:
        name = str(target.get("revisionName", ""))
        shares[name] = shares.get(name, 0) + (target.get("percent") or 0)
    return shares
