"""Admission of a client's write: parsing, conversion, defaults, validation. Pure.

Admission is idempotent: an admitted body that is admitted again does not change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from knoll.config.platform import PlatformConfig
from knoll.resources.admission import build_rules, kind_rules, revision_rules
from knoll.resources.admission.conversion import converted
from knoll.resources.admission.parsing import read
from knoll.resources.models.base import Resource
from knoll.resources.models.build import Build
from knoll.resources.models.configuration import Configuration
from knoll.resources.models.domain_claim import ClusterDomainClaim
from knoll.resources.models.domain_mapping import DomainMapping
from knoll.resources.models.revision import Revision
from knoll.resources.models.route import Route
from knoll.resources.models.service import Service
from knoll.resources.validation.problems import merged
from knoll.values import labels as well_known
from knoll.values.errors import AdmissionError, FieldError, InvalidResourceError
from knoll.values.json import Json
from knoll.values.kinds import (
    BUILD_KIND,
    CLUSTER_DOMAIN_CLAIM,
    CONFIGURATION,
    DOMAIN_MAPPING,
    NETWORKING,
    REVISION,
    ROUTE,
    SERVICE,
    SERVING,
    Kind,
)
from knoll.values.timestamps import timestamp

MAX_GENERATED_PREFIX = 58
"""Maximum length of generateName, so that a label has room for a suffix of five characters."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """How a kind is parsed, defaulted and validated."""

    model: type[Resource]
    defaulted: Callable[[Any, PlatformConfig, Any], Any]
    validate: Callable[[Any, Any, PlatformConfig], list[FieldError]]
    authored: bool = True
    """Whether annotations record its creator and last modifier."""


_RULES: Mapping[str, _Rules] = {
    SERVICE.id: _Rules(Service, kind_rules.defaulted_service, kind_rules.validate_service),
    CONFIGURATION.id: _Rules(Configuration, kind_rules.defaulted_configuration, kind_rules.validate_configuration),
    ROUTE.id: _Rules(Route, kind_rules.defaulted_route, kind_rules.validate_route),
    REVISION.id: _Rules(Revision, revision_rules.defaulted, revision_rules.validate, authored=False),
    DOMAIN_MAPPING.id: _Rules(DomainMapping, kind_rules.defaulted_domain_mapping, kind_rules.validate_domain_mapping),
    CLUSTER_DOMAIN_CLAIM.id: _Rules(
        ClusterDomainClaim, kind_rules.defaulted_domain_claim, kind_rules.validate_domain_claim, authored=False
    ),
    BUILD_KIND.id: _Rules(Build, build_rules.defaulted, build_rules.validate, authored=False),
}

MODELS: Mapping[str, type[Resource]] = {resource: rules.model for resource, rules in _RULES.items()}
"""Resource id to model, for every kind that is admitted here."""


def handles(kind: Kind) -> bool:
    """Whether objects of this kind are admitted here."""
    return kind.id in _RULES


def unknown_fields(kind: Kind, body: Mapping[str, Any]) -> list[str]:
    """Paths of the unknown fields in a client's body.

    Raises:
        BadRequestError: another kind or version.
    """
    return read(_RULES[kind.id].model, converted(kind, body))[1]


def admit_create(
    kind: Kind, body: Mapping[str, Any], *, user: str, now: float, uid: str, name_suffix: str, config: PlatformConfig
) -> Json:
    """Return a new object in the form to store.

    Args:
        body: as the client sent it, in any version of its kind; the namespace is filled in.
        user: of the request.
        now: epoch seconds.
        uid: for the object.
        name_suffix: random letters that complete a generateName.

    Raises:
        BadRequestError: another kind or version.
        AdmissionError, InvalidResourceError: it is invalid; carries all problems.
    """
    rules = _RULES[kind.id]
    resource = _read(kind, body)
    meta = resource.metadata
    name = meta.name or (meta.generate_name[:MAX_GENERATED_PREFIX] + name_suffix if meta.generate_name else "")
    annotations = meta.annotations
    if rules.authored and not meta.owner_references:
        annotations = {**annotations, well_known.CREATOR: user, well_known.LAST_MODIFIER: user}
    given = meta.changed(annotations=annotations)
    # Names are validated as the client wrote them: it is not responsible for a generated name.
    resource = rules.defaulted(resource.changed(metadata=given), config, None)
    _refuse(kind, rules.validate(resource, None, config))
    stored = given.changed(
        name=name,
        uid=uid,
        generation=1,
        creation_timestamp=timestamp(now),
        resource_version="",
        deletion_timestamp="",
        deletion_grace_period_seconds=None,
        self_link="",
    )
    return _json(resource.changed(metadata=stored))


def admit_update(
    kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any], *, user: str, now: float, config: PlatformConfig
) -> Json:
    """Return a changed object in the form to store.

    Fields that the server owns do not change: identity, times, status, and the creator if the client omitted it. The
    generation is incremented if the spec, with its defaults, differs. An object that is being deleted is not validated,
    so that its finalizers can be removed.

    Raises: as `admit_create`.
    """
    rules = _RULES[kind.id]
    before, resource = _read(kind, old), _read(kind, new)
    was, given = before.metadata, resource.metadata
    annotations = given.annotations
    if rules.authored:
        kept = {
            key: was.annotations[key]
            for key in (well_known.CREATOR, well_known.LAST_MODIFIER)
            if key in was.annotations
        }
        annotations = {**kept, **annotations}
    meta = given.changed(
        name=was.name,
        generate_name=was.generate_name,
        namespace=was.namespace,
        uid=was.uid,
        resource_version=given.resource_version or was.resource_version,
        generation=was.generation,
        creation_timestamp=was.creation_timestamp,
        deletion_timestamp=was.deletion_timestamp,
        deletion_grace_period_seconds=was.deletion_grace_period_seconds,
        self_link=was.self_link,
        annotations=annotations,
    )
    resource = resource.changed(metadata=meta)
    if was.deletion_timestamp:
        return _with_status(resource, old)
    resource = rules.defaulted(resource, config, before)
    changed = resource.spec != before.spec
    _refuse(kind, rules.validate(resource, before, config))
    if changed:
        if rules.authored and not meta.owner_references:
            meta = meta.changed(annotations={**annotations, well_known.LAST_MODIFIER: user})
        meta = meta.changed(generation=was.generation + 1)
    return _with_status(resource.changed(metadata=meta), old)


def admit_status(kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> Json:
    """Return the stored object with the status of `new`: a write to `/status` changes nothing else.

    Raises:
        AdmissionError, InvalidResourceError: the status has values of the wrong type.
    """
    parsed, _, problems = read(_RULES[kind.id].model, {"status": new.get("status")})
    if parsed is None:
        _refuse(kind, problems)
        raise AssertionError("unreachable: what cannot be read has problems")
    version = (new.get("metadata") or {}).get("resourceVersion")
    result = {key: value for key, value in old.items() if key != "status"}
    if version:
        result["metadata"] = {**result["metadata"], "resourceVersion": version}
    status = parsed.to_json().get("status")
    return {**result, "status": status} if status else result


def _read(kind: Kind, body: Mapping[str, Any]) -> Any:
    """Parse the object without its status, which such a write does not change."""
    about = {key: value for key, value in body.items() if key != "status"}
    resource, _, problems = read(_RULES[kind.id].model, converted(kind, about))
    if resource is None:
        _refuse(kind, problems)
    return resource


def _json(resource: Resource) -> Json:
    return resource.to_json()


def _with_status(resource: Resource, old: Mapping[str, Any]) -> Json:
    return {**resource.to_json(), "status": old["status"]} if old.get("status") else resource.to_json()


def _refuse(kind: Kind, problems: list[FieldError]) -> None:
    if problems:
        raise (AdmissionError if kind.group in (SERVING, NETWORKING) else InvalidResourceError)(merged(problems))
