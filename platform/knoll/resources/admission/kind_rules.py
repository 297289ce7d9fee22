"""Defaults and rules of Services, Configurations, Routes and DomainMappings. Pure.

`defaulted_*` returns a new object and is idempotent; `validate_*` returns all problems. `old` is the stored object,
None for a new one.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from knoll.config.platform import PlatformConfig
from knoll.resources.admission.revision_rules import (
    applied_unchanged,
    defaulted_template,
    name_change_problems,
    template_problems,
)
from knoll.resources.models.base import Resource
from knoll.resources.models.configuration import Configuration
from knoll.resources.models.domain_claim import ClusterDomainClaim
from knoll.resources.models.domain_mapping import DomainMapping
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.models.revision import RevisionTemplate
from knoll.resources.models.route import Route
from knoll.resources.models.service import Service
from knoll.resources.validation.annotation_rules import label_problems, metadata_problems, rollout_duration_problems
from knoll.resources.validation.host_rules import route_host_problem, unclaimable
from knoll.resources.validation.problems import disallowed, invalid, missing
from knoll.resources.validation.traffic_rules import Targets, defaulted_traffic, traffic_problems
from knoll.values import labels as well_known
from knoll.values.errors import FieldError
from knoll.values.names import dns_1035_problems, dns_1123_problems, subdomain_problems

R = TypeVar("R", bound=Resource)

_PATH = "spec.template"
_NO_OWNERS: Mapping[str, str] = {}


def defaulted_service(service: Service, config: PlatformConfig, old: Service | None = None) -> Service:
    spec = service.spec.changed(
        template=_template(service, config, old),
        traffic=defaulted_traffic(service.spec.traffic, in_service=True),
    )
    return service.changed(spec=spec)


Templated = Service | Configuration


def _template(resource: Templated, config: PlatformConfig, old: Templated | None) -> RevisionTemplate:
    template = resource.spec.template
    if old is None:
        return defaulted_template(template, config, resource.metadata)
    if applied_unchanged(template, resource.metadata, old.spec.template, old.metadata):
        return old.spec.template
    return defaulted_template(template, config, resource.metadata, old.spec.template)


def validate_service(service: Service, old: Service | None, config: PlatformConfig) -> list[FieldError]:
    meta = service.metadata
    problems = [
        *metadata_problems(meta, config.autoscaler),
        *rollout_duration_problems(meta.annotations),
        *label_problems(meta, frozenset(), _NO_OWNERS),
        *template_problems(service.spec.template, config, meta, _PATH),
        *traffic_problems(service.spec.traffic, "spec.traffic", in_service=True),
        *_route_problems(meta, service.spec.traffic, config, new=old is None),
    ]
    if old is not None:
        problems += name_change_problems(service.spec.template, old.spec.template, _PATH)
        problems += author_problems(meta, old.metadata, changed=service.spec != old.spec)
    return problems


def _route_problems(meta: ObjectMeta, traffic: Targets, config: PlatformConfig, *, new: bool) -> Iterator[FieldError]:
    """Names and tags whose hosts would not be valid DNS names.

    Args:
        new: whether the name itself is validated; a template that changes later does not prevent updates of the object.
    """
    # Names and tags that are not labels are reported elsewhere.
    if dns_1035_problems(meta.name):
        return
    tags = {f"spec.traffic[{at}].tag": target.tag for at, target in enumerate(traffic) if target.tag}
    for path, tag in {**({"metadata.name": ""} if new else {}), **tags}.items():
        if tag and dns_1035_problems(tag):
            continue
        if problem := route_host_problem(meta, tag, config.domain, config.network):
            yield FieldError(problem, (path,))


def defaulted_configuration(
    configuration: Configuration, config: PlatformConfig, old: Configuration | None = None
) -> Configuration:
    return configuration.changed(spec=configuration.spec.changed(template=_template(configuration, config, old)))


_CONFIGURATION_LABELS = frozenset({well_known.ROUTE, well_known.CONFIGURATION_UID, well_known.SERVICE_UID})


def validate_configuration(
    configuration: Configuration, old: Configuration | None, config: PlatformConfig
) -> list[FieldError]:
    meta = configuration.metadata
    problems = [
        *metadata_problems(meta, config.autoscaler),
        *label_problems(meta, _CONFIGURATION_LABELS, {well_known.SERVICE: "Service"}),
        *template_problems(configuration.spec.template, config, meta, _PATH),
    ]
    if old is not None:
        problems += name_change_problems(configuration.spec.template, old.spec.template, _PATH)
        if not meta.owner_references:
            problems += author_problems(meta, old.metadata, changed=configuration.spec != old.spec)
    return problems


def defaulted_route(route: Route, config: PlatformConfig, old: Route | None = None) -> Route:
    return route.changed(spec=route.spec.changed(traffic=defaulted_traffic(route.spec.traffic, in_service=False)))


_ROUTE_LABELS = frozenset({well_known.SERVICE_UID})


def validate_route(route: Route, old: Route | None, config: PlatformConfig) -> list[FieldError]:
    meta = route.metadata
    problems = [
        *metadata_problems(meta, config.autoscaler),
        *rollout_duration_problems(meta.annotations),
        *label_problems(meta, _ROUTE_LABELS, {well_known.SERVICE: "Service"}),
        *traffic_problems(route.spec.traffic, "spec.traffic", in_service=False),
        *_route_problems(meta, route.spec.traffic, config, new=old is None),
    ]
    if old is not None and not meta.owner_references:
        problems += author_problems(meta, old.metadata, changed=route.spec != old.spec)
    return problems


def defaulted_domain_mapping(
    mapping: DomainMapping, config: PlatformConfig, old: DomainMapping | None = None
) -> DomainMapping:
    ref = mapping.spec.ref
    namespace = ref.namespace or mapping.metadata.namespace
    return mapping.changed(spec=mapping.spec.changed(ref=ref.changed(namespace=namespace)))


def validate_domain_mapping(
    mapping: DomainMapping, old: DomainMapping | None, config: PlatformConfig
) -> list[FieldError]:
    problems = [*_host_problems(mapping.metadata), *_ref_problems(mapping)]
    if old is None and not problems and (reason := unclaimable(mapping.metadata.name, config.domain, config.network)):
        problems.append(FieldError(f'invalid name "{mapping.metadata.name}": {reason}', ("metadata.name",)))
    if mapping.spec.tls is not None and not mapping.spec.tls.secret_name:
        problems.append(missing("spec.tls.secretName"))
    if old is not None:
        problems += author_problems(mapping.metadata, old.metadata, changed=mapping.spec != old.spec)
    return problems


def defaulted_domain_claim(
    claim: ClusterDomainClaim, config: PlatformConfig, old: ClusterDomainClaim | None = None
) -> ClusterDomainClaim:
    return claim


def validate_domain_claim(
    claim: ClusterDomainClaim, old: ClusterDomainClaim | None, config: PlatformConfig
) -> list[FieldError]:
    problems = list(_host_problems(claim.metadata))
    namespace = claim.spec.namespace
    if not namespace:
        problems.append(missing("spec.namespace"))
    elif dns_1123_problems(namespace):
        problems.append(invalid(namespace, "spec.namespace"))
    return problems


def _host_problems(meta: ObjectMeta) -> Iterator[FieldError]:
    if meta.generate_name:
        yield disallowed("metadata.generateName")
    if not meta.name:
        yield FieldError("name or generateName is required", ("metadata.name",))
    elif problems := subdomain_problems(meta.name):
        yield FieldError(f'invalid name "{meta.name[:253]}": {"; ".join(problems)}', ("metadata.name",))
    elif "." not in meta.name:
        yield FieldError(
            f'invalid name "{meta.name}": should be a domain with at least two segments separated by dots',
            ("metadata.name",),
        )


def _ref_problems(mapping: DomainMapping) -> Iterator[FieldError]:
    ref = mapping.spec.ref
    for name, value in (("apiVersion", ref.api_version or ref.group), ("kind", ref.kind), ("name", ref.name)):
        if not value:
            yield missing(f"spec.ref.{name}")
    if ref.namespace != mapping.metadata.namespace:
        details = f'parent namespace: "{mapping.metadata.namespace}" does not match ref: "{ref.namespace}"'
        yield FieldError("mismatched namespaces", ("spec.ref.namespace",), details)


def author_problems(meta: ObjectMeta, old: ObjectMeta, *, changed: bool) -> Iterator[FieldError]:
    """The annotations of the creator and the last modifier are set by the server."""
    path = "metadata.annotations"
    if meta.annotations.get(well_known.CREATOR) != old.annotations.get(well_known.CREATOR):
        yield FieldError("annotation value is immutable", (f"{path}.{well_known.CREATOR}",))
    modifier = meta.annotations.get(well_known.LAST_MODIFIER)
    if not changed and modifier != old.annotations.get(well_known.LAST_MODIFIER):
        yield invalid(modifier, f"{path}.{well_known.LAST_MODIFIER}")
