"""Environment variables of a Revision's containers, and the objects that they come from. Pure.

Source: Kubernetes, pkg/kubelet/kubelet_pods.go (`makeEnvironmentVariables`), pkg/fieldpath, pkg/api/v1/resource.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from autoscaler.runtime.model import ADDRESS
from autoscaler.spec.expansion import expand
from knoll.resources.models import pod
from knoll.resources.models.env import EnvVarKeySelector, EnvVarSource, ObjectReference, ResourceFieldSelector
from knoll.resources.models.volume import Volume
from knoll.values import kinds
from knoll.values.errors import KnollError
from knoll.values.json import Json
from knoll.values.names import VARIABLE
from knoll.values.quantity import parse_quantity

Reference = tuple[str, str]
"""Resource id and name of an object in the Revision's namespace."""
Find = Callable[[str, str], Json | None]
"""Looks an object up by its `Reference`; None when it does not exist."""

_KINDS = {kinds.CONFIG_MAP.id: "ConfigMap", kinds.SECRET.id: "Secret"}
_SINGULAR = {
    kind.id: kind.singular for kind in (kinds.CONFIG_MAP, kinds.SECRET, kinds.VOLUME_CLAIM, kinds.SERVICE_ACCOUNT)
}
_KEYED = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")


class MissingSourceError(KnollError):
    """An object or key that a container refers to is missing: the instance waits for it."""

    code, reason = 500, "CreateContainerConfigError"


@dataclass(frozen=True, slots=True)
class About:
    """What an instance may refer to of itself."""

    name: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    node: str = ""
    cores: float = 1.0
    """Of the machine: the value for a container without a limit."""
    memory_bytes: int = 0


def variables(container: pod.Container, ours: Mapping[str, str], about: About, find: Find) -> dict[str, str]:
    """Return all variables of a container, final except for `ADDRESS`.

    Args:
        ours: the platform's own, which nothing overrides.

    Raises:
        MissingSourceError: an object or a key is missing and not optional.
    """
    from_objects = _from_whole_objects(container, about, find)
    values = {name: value for name, value in from_objects if name not in ours} | dict(ours)
    for variable in container.env:
        if variable.name in ours:
            continue
        value = (
            _value_from(variable.value_from, container, about, find)
            if variable.value_from and not variable.value
            else expand(variable.value, values)
        )
        if value is not None:
            values[variable.name] = value
    return values


def references(spec: pod.PodSpec) -> frozenset[Reference]:
    """Return every object that a pod's variables and volumes refer to, optional ones included."""
    containers = (*spec.containers, *spec.init_containers)
    objects = {reference for container in containers for reference in _container_references(container)}
    sources = [source for volume in spec.volumes if volume.projected for source in volume.projected.sources]
    if any(source.service_account_token for source in sources):
        objects.add((kinds.SERVICE_ACCOUNT.id, account_of(spec)))
    return frozenset(objects | {each for volume in spec.volumes for each in volume_references(volume)})


def account_of(spec: pod.PodSpec) -> str:
    """Return the name of the ServiceAccount that a pod runs as."""
    return spec.service_account_name or "default"


def volume_references(volume: Volume) -> Iterator[Reference]:
    """Yield the objects that a volume refers to."""
    if volume.config_map:
        yield kinds.CONFIG_MAP.id, volume.config_map.name
    if volume.secret:
        yield kinds.SECRET.id, volume.secret.secret_name
    if volume.persistent_volume_claim:
        yield kinds.VOLUME_CLAIM.id, volume.persistent_volume_claim.claim_name
    for source in volume.projected.sources if volume.projected else ():
        if source.config_map:
            yield kinds.CONFIG_MAP.id, source.config_map.name
        if source.secret:
            yield kinds.SECRET.id, source.secret.name


def content(resource: str, body: Json) -> dict[str, bytes]:
    """Return the values of a ConfigMap (`data`, `binaryData`) or a Secret, by key.

    Raises:
        MissingSourceError: a value is not base64.
    """
    encoded = (body.get("data") if resource == kinds.SECRET.id else body.get("binaryData")) or {}
    plain = {} if resource == kinds.SECRET.id else body.get("data") or {}
    values = {key: str(value).encode() for key, value in plain.items()}
    for key, value in encoded.items():
        try:
            values[key] = base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError) as error:
            name = body["metadata"]["name"]
            raise MissingSourceError(f"key {key} of {_SINGULAR[resource]} {name!r} is not base64") from error
    return values


def lookup(find: Find, resource: str, name: str, *, optional: bool | None) -> Json | None:
    """Return an object; None when it is missing and optional.

    Raises:
        MissingSourceError: it is missing.
    """
    body = find(resource, name)
    if body is None and not optional:
        raise MissingSourceError(f'{_SINGULAR[resource]} "{name}" not found')
    return body


def field_value(path: str, about: About) -> str:
    """Return a field of the instance's metadata or status.

    Raises:
        MissingSourceError: no such field.
    """
    keyed = _KEYED.fullmatch(path)
    if keyed:
        return (about.labels if keyed[1] == "metadata.labels" else about.annotations).get(keyed[2], "")
    plain = {
        "metadata.name": about.name,
        "metadata.namespace": about.namespace,
        "metadata.labels": _listed(about.labels),
        "metadata.annotations": _listed(about.annotations),
        "spec.nodeName": about.node,
        "spec.serviceAccountName": about.service_account,
        "status.podIP": ADDRESS,
        "status.podIPs": ADDRESS,
    }
    if path not in plain:
        raise MissingSourceError(f"unsupported fieldPath: {path}; use one of {', '.join(plain)}")
    return plain[path]


def resource_value(selector: ResourceFieldSelector, container: pod.Container, about: About) -> str:
    """Return a limit or request in units of the divisor, rounded up.

    An unset limit is what the machine has; an unset request is 0.

    Raises:
        MissingSourceError: a resource other than `limits.cpu`, `limits.memory`, `requests.cpu`, `requests.memory`.
    """
    group, _, name = selector.resource.partition(".")
    if group not in ("limits", "requests") or name not in ("cpu", "memory"):
        raise MissingSourceError(f"unsupported container resource: {selector.resource}")
    resources = container.resources or pod.ResourceRequirements()
    quantity = (resources.limits if group == "limits" else resources.requests).get(name)
    default = Fraction(about.cores if name == "cpu" else about.memory_bytes) if group == "limits" else Fraction(0)
    value = parse_quantity(str(quantity)) if quantity is not None else default
    divisor = parse_quantity(str(selector.divisor)) if selector.divisor else 0
    return str(math.ceil(value / (divisor or 1)))


def _value_from(source: EnvVarSource, container: pod.Container, about: About, find: Find) -> str | None:
    if source.config_map_key_ref:
        return _key(find, kinds.CONFIG_MAP.id, source.config_map_key_ref, about)
    if source.secret_key_ref:
        return _key(find, kinds.SECRET.id, source.secret_key_ref, about)
    if source.field_ref:
        return field_value(source.field_ref.field_path, about)
    # Only volumes can refer to resources of other containers: validation ensures it.
    return resource_value(source.resource_field_ref or ResourceFieldSelector(), container, about)


def _key(find: Find, resource: str, selector: EnvVarKeySelector, about: About) -> str | None:
    body = lookup(find, resource, selector.name, optional=selector.optional)
    value = content(resource, body).get(selector.key) if body else None
    if value is None:
        if selector.optional:
            return None
        where = f"{about.namespace}/{selector.name}"
        raise MissingSourceError(f"couldn't find key {selector.key} in {_KINDS[resource]} {where}")
    return _text(value, selector.key, selector.name)


def _from_whole_objects(container: pod.Container, about: About, find: Find) -> Iterator[tuple[str, str]]:
    """Later sources win. Keys that cannot name a variable are skipped, as on Kubernetes."""
    for source in container.env_from:
        whole = source.config_map_ref or source.secret_ref or ObjectReference()
        resource = kinds.CONFIG_MAP.id if source.config_map_ref else kinds.SECRET.id
        body = lookup(find, resource, whole.name, optional=whole.optional)
        if body is None:
            continue
        binary = set((body.get("binaryData") or {}) if resource == kinds.CONFIG_MAP.id else ())
        for key, value in content(resource, body).items():
            if key not in binary and VARIABLE.fullmatch(source.prefix + key):
                yield source.prefix + key, _text(value, key, whole.name)


def _text(value: bytes, key: str, name: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise MissingSourceError(f'key {key} of "{name}" is not text and cannot be a variable: use a volume')
    return text


def _container_references(container: pod.Container) -> Iterator[Reference]:
    for source in container.env_from:
        if source.config_map_ref:
            yield kinds.CONFIG_MAP.id, source.config_map_ref.name
        if source.secret_ref:
            yield kinds.SECRET.id, source.secret_ref.name
    for variable in container.env:
        if variable.value_from and variable.value_from.config_map_key_ref:
            yield kinds.CONFIG_MAP.id, variable.value_from.config_map_key_ref.name
        if variable.value_from and variable.value_from.secret_key_ref:
            yield kinds.SECRET.id, variable.value_from.secret_key_ref.name


def _listed(pairs: Mapping[str, str]) -> str:
    """Format labels as Kubernetes writes them into a file: sorted lines of `key="value"`."""
    escaped = (
        (key, pairs[key].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for key in sorted(pairs)
    )
    return "\n".join(f'{key}="{value}"' for key, value in escaped)
