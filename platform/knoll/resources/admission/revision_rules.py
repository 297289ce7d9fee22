"""Defaults and rules of Revisions and their templates. Pure."""

from collections.abc import Iterator
from typing import Any

import orjson

from knoll.config.platform import PlatformConfig
from knoll.resources.admission.pod_defaults import defaulted_spec
from knoll.resources.models.meta import ObjectMeta, TemplateMeta
from knoll.resources.models.revision import Revision, RevisionSpec, RevisionTemplate
from knoll.resources.validation.annotation_rules import (
    autoscaling_problems,
    knative_key_problems,
    label_problems,
    metadata_problems,
    progress_deadline_problems,
    queue_sidecar_problems,
)
from knoll.resources.validation.pod_rules import pod_problems
from knoll.resources.validation.problems import disallowed, invalid, out_of_bounds
from knoll.values import labels as well_known
from knoll.values.errors import FieldError
from knoll.values.json_diff import difference
from knoll.values.names import dns_1035_problems, joined


def defaulted_template(
    template: RevisionTemplate, config: PlatformConfig, parent: ObjectMeta, old: RevisionTemplate | None = None
) -> RevisionTemplate:
    """Return the template with its defaults.

    An unchanged template is not changed, even if the defaults have changed. An absent enableServiceLinks gets its
    default unless it was absent in the old template too.
    """
    if old is not None and template == old:
        return old
    links = old is None or old.spec.enable_service_links is not None
    return template.changed(spec=defaulted_spec(template.spec, config, parent, service_links=links))


def applied_unchanged(
    template: RevisionTemplate, parent: ObjectMeta, old: RevisionTemplate, old_parent: ObjectMeta
) -> bool:
    """Whether a template with a Revision name was applied again unchanged, apart from the defaults that it got.

    Such a template must not be treated as changed if the platform's defaults changed: it would be rejected, together
    with a change of the traffic in the same manifest. kubectl's annotation contains what the client applied before.
    """
    if not template.metadata.name or template.metadata.name != old.metadata.name:
        return False
    applied = _last_applied(parent)
    return applied is not None and applied == _last_applied(old_parent) and _within(template.to_json(), old.to_json())


def _last_applied(meta: ObjectMeta) -> Any:
    """The template in kubectl's copy of the manifest; None if there is none."""
    try:
        return orjson.loads(meta.annotations.get(well_known.LAST_APPLIED, ""))["spec"]["template"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _within(part: Any, whole: Any) -> bool:
    """Whether `whole` contains everything in `part`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole)


def template_problems(
    template: RevisionTemplate, config: PlatformConfig, parent: ObjectMeta, path: str
) -> Iterator[FieldError]:
    """Yield all problems of the template at `path` of an object with metadata `parent`."""
    yield from spec_problems(template.spec, config, f"{path}.spec")
    annotations = template.metadata.annotations
    here = f"{path}.metadata.annotations"
    yield from autoscaling_problems(annotations, config.autoscaler, here)
    yield from progress_deadline_problems(annotations, here)
    yield from queue_sidecar_problems(annotations, here)
    yield from knative_key_problems(annotations, here)
    yield from _name_problems(template.metadata, parent, path)


def _name_problems(meta: TemplateMeta, parent: ObjectMeta, path: str) -> Iterator[FieldError]:
    if meta.generate_name and (problems := dns_1035_problems(meta.generate_name, prefix=True)):
        yield invalid(f"not a DNS 1035 label prefix: {joined(problems)}", f"{path}.metadata.generateName")
    name = meta.name
    if not name:
        return
    prefix = f"{parent.name}-"
    if problems := dns_1035_problems(name):
        yield invalid(f"not a DNS 1035 label: {joined(problems)}", f"{path}.metadata.name")
    elif parent.generate_name and not parent.name:
        yield disallowed(f"{path}.metadata.name")
    elif not name.startswith(prefix):
        yield invalid(f'"{name}" must have prefix "{prefix}"', f"{path}.metadata.name")


def name_change_problems(new: RevisionTemplate, old: RevisionTemplate, path: str) -> Iterator[FieldError]:
    """A template that sets its Revision's name must set another one if it changes, because Revisions are immutable."""
    if new.metadata.name and new.metadata.name == old.metadata.name and new != old:
        yield FieldError(
            "Saw the following changes without a name change (-old +new)",
            (f"{path}.metadata.name",),
            difference(old.to_json(), new.to_json()),
        )


def spec_problems(spec: RevisionSpec, config: PlatformConfig, path: str) -> Iterator[FieldError]:
    """Yield all problems of a Revision's spec at `path`."""
    yield from pod_problems(spec, config.features, path)
    longest = config.defaults.max_revision_timeout_seconds
    timeout = spec.timeout_seconds or 0
    if not 0 <= timeout <= longest:
        yield out_of_bounds(timeout, 0, longest, f"{path}.timeoutSeconds")
    for name, seconds in (
        ("responseStartTimeoutSeconds", spec.response_start_timeout_seconds),
        ("idleTimeoutSeconds", spec.idle_timeout_seconds),
    ):
        bound = timeout if 0 < timeout <= longest else longest
        if seconds is not None and not 0 <= seconds <= bound:
            yield out_of_bounds(seconds, 0, bound, f"{path}.{name}")
    concurrency = spec.container_concurrency
    least, most = (
        int(not config.defaults.allow_container_concurrency_zero),
        config.defaults.container_concurrency_max_limit,
    )
    if concurrency is not None and not least <= concurrency <= most:
        yield out_of_bounds(concurrency, least, most, f"{path}.containerConcurrency")


def defaulted(revision: Revision, config: PlatformConfig, old: Revision | None = None) -> Revision:
    """Return a new Revision with its defaults; an existing one is not changed."""
    if old is not None:
        return revision
    return revision.changed(spec=defaulted_spec(revision.spec, config, revision.metadata))


_LABELS = frozenset(
    {
        well_known.ROUTING_STATE, well_known.ROUTE, well_known.SERVICE, well_known.CONFIGURATION_UID,
        well_known.SERVICE_UID, well_known.CONFIGURATION_GENERATION,
    }
)  # fmt: skip


def validate(revision: Revision, old: Revision | None, config: PlatformConfig) -> list[FieldError]:
    """Yield all problems of a Revision, new or (with `old`) changed."""
    meta = revision.metadata
    problems = [
        *metadata_problems(meta, config.autoscaler, autoscaling=True),
        *progress_deadline_problems(meta.annotations, "metadata.annotations"),
        *label_problems(meta, _LABELS, {well_known.CONFIGURATION: "Configuration"}),
    ]
    if old is None:
        problems += spec_problems(revision.spec, config, "spec")
    elif revision.spec != old.spec:
        details = difference(old.spec.to_json(), revision.spec.to_json(), "spec")
        problems.append(FieldError("Immutable fields changed (-old +new)", ("spec",), details))
    return problems
