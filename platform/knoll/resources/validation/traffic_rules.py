"""Defaults and validation of traffic targets. Pure."""

from collections.abc import Iterator, Sequence

from knoll.resources.models.meta import TrafficTarget
from knoll.resources.validation.problems import (
    disallowed,
    invalid,
    invalid_key,
    missing_one_of,
    multiple_one_of,
    out_of_bounds,
)
from knoll.values.errors import FieldError
from knoll.values.names import dns_1035_problems, joined, qualified_problems

Targets = tuple[TrafficTarget, ...]

EVERYTHING_TO_LATEST = TrafficTarget(latest_revision=True, percent=100)


def defaulted_traffic(targets: Targets, *, in_service: bool) -> Targets:
    """Return the targets with their defaults; without targets, a Service's latest Revision gets all requests."""
    if not targets and in_service:
        return (EVERYTHING_TO_LATEST,)
    return tuple(
        target.changed(
            latest_revision=not target.revision_name if target.latest_revision is None else target.latest_revision,
            percent=target.percent or 0,
        )
        for target in targets
    )


def traffic_problems(targets: Sequence[TrafficTarget], path: str, *, in_service: bool) -> Iterator[FieldError]:
    """Yield all problems of the targets at `path`. Those of a Service have no configurationName."""
    tags: dict[str, int] = {}
    for at, target in enumerate(targets):
        here = f"{path}[{at}]"
        yield from _target(target, here, in_service)
        if not target.tag:
            continue
        if problems := dns_1035_problems(target.tag):
            yield invalid(f"not a DNS 1035 label: {joined(problems)}", f"{here}.tag")
        if target.tag in tags:
            yield FieldError(
                f'Multiple definitions for "{target.tag}"', (f"{here}.tag", f"{path}[{tags[target.tag]}].tag")
            )
        tags.setdefault(target.tag, at)
    total = sum(target.percent or 0 for target in targets)
    if total != 100:
        yield FieldError(f"Traffic targets sum to {total}, want 100", (path,))


def _target(target: TrafficTarget, path: str, in_service: bool) -> Iterator[FieldError]:
    pinned = bool(target.revision_name)
    if target.latest_revision is not None and target.latest_revision == pinned:
        latest = str(target.latest_revision).lower()
        reason = f'may not set revisionName "{target.revision_name}" when latestRevision is {latest}'
        yield FieldError(reason, (f"{path}.latestRevision",))
    yield from _whom(target, path, in_service)
    if target.percent is not None and not 0 <= target.percent <= 100:
        yield out_of_bounds(target.percent, 0, 100, f"{path}.percent")
    if target.url:
        yield disallowed(f"{path}.url")


def _whom(target: TrafficTarget, path: str, in_service: bool) -> Iterator[FieldError]:
    names = {"revisionName": target.revision_name, "configurationName": target.configuration_name}
    if in_service and target.configuration_name:
        yield disallowed(f"{path}.configurationName")
    elif all(names.values()):
        yield multiple_one_of(*(f"{path}.{name}" for name in names))
    elif not any(names.values()) and not in_service:
        yield missing_one_of(*(f"{path}.{name}" for name in names))
    else:
        for name, value in names.items():
            if value and (problems := qualified_problems(value)):
                yield invalid_key(value, f"{path}.{name}", ", ".join(problems))
