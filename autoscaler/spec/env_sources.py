"""What a Revision's containers take from other objects: variables, and which objects those are. Pure.

Source: Kubernetes, pkg/kubelet/kubelet_pods.go (`makeEnvironmentVariables`), pkg/fieldpath, pkg/api/v1/resource.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from autoscaler.runtime.protocol import ADDRESS
from autoscaler.spec.expansion import expand
from knoll.resources.models import pod
from knoll.values import kinds
from knoll.values.errors import KnollError
from knoll.values.json import Json
from knoll.values.names import VARIABLE
from knoll.values.quantity import parse_quantity

Reference = tuple[str, str]
"""Resource id and name of an object in the Revision's namespace."""
Find = Callable[[str, str], Json | None]
"""Looks an object up by its `Reference`; None when there is none."""

_WORDS = {kinds.CONFIG_MAP.id: "ConfigMap", kinds.SECRET.id: "Secret"}
_SINGULAR = {
    kind.id: kind.singular for kind in (kinds.CONFIG_MAP, kinds.SECRET, kinds.VOLUME_CLAIM, kinds.SERVICE_ACCOUNT)
}
_KEYED = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")


class MissingSourceError(KnollError):
    """Something that a container was promised is not there (yet): it waits until it is."""

    code, reason = 500, "CreateContainerConfigError"


@dataclass(frozen=True, slots=True)
class About:
    """What an instance may ask of itself."""

    name: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    node: str = ""
    cores: float = 1.0
    """Of the machine: what a container without a limit is told."""
    memory_bytes: int = 0


def variables(one: pod.Container, ours: Mapping[str, str], about: About, find: Find) -> dict[str, str]:
    """All variables of a container, final but for `ADDRESS`.

    Args:
        ours: the platform's own, which nobody overrides.

    Raises:
        MissingSourceError: an object or a key is missing and not optional.
    """
    known = {name: value for name, value in _from_whole_objects(one, about, find) if name not in ours} | dict(ours)
    for variable in one.env:
        if variable.name in ours:
            continue
        value = (
            _value_from(variable.value_from, one, about, find)
            if variable.value_from and not variable.value
            else expand(variable.value, known)
        )
        if value is not None:
            known[variable.name] = value
    return known


def references(spec: pod.PodSpec) -> frozenset[Reference]:
    """Every object that a pod's variables and volumes refer to, optional ones included."""
    found = {each for one in (*spec.containers, *spec.init_containers) for each in _container_references(one)}
    sources = [source for volume in spec.volumes if volume.projected for source in volume.projected.sources]
    if any(source.service_account_token for source in sources):
        found.add((kinds.SERVICE_ACCOUNT.id, account_of(spec)))
    return frozenset(found | {each for volume in spec.volumes for each in volume_references(volume)})


def account_of(spec: pod.PodSpec) -> str:
    """Name of the ServiceAccount that a pod runs as."""
    return spec.service_account_name or "default"


def volume_references(volume: pod.Volume) -> Iterator[Reference]:
    """Those of one volume."""
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
    """Key to value of a ConfigMap (`data`, `binaryData`) or a Secret.

    Raises:
        MissingSourceError: a value is not base64.
    """
    encoded = (body.get("data") if resource == kinds.SECRET.id else body.get("binaryData")) or {}
    plain = {} if resource == kinds.SECRET.id else body.get("data") or {}
    found = {key: str(value).encode() for key, value in plain.items()}
    for key, value in encoded.items():
        try:
            found[key] = base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError) as error:
            name = body["metadata"]["name"]
            raise MissingSourceError(f"key {key} of {_SINGULAR[resource]} {name!r} is not base64") from error
    return found


def lookup(find: Find, resource: str, name: str, *, optional: bool | None) -> Json | None:
    """An object; None when it is missing and may be.

    Raises:
        MissingSourceError: it is missing.
    """
    body = find(resource, name)
    if body is None and not optional:
        raise MissingSourceError(f'{_SINGULAR[resource]} "{name}" not found')
    return body


def field_value(path: str, about: About) -> str:
    """A field of the instance's metadata, or of its state.

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


def resource_value(wanted: pod.ResourceFieldSelector, container: pod.Container, about: About) -> str:
    """A limit or request in units of the divisor, rounded up; what is not set is what the machine has, or 0.

    Raises:
        MissingSourceError: another resource than `limits.cpu`, `limits.memory`, `requests.cpu`, `requests.memory`.
    """
    group, _, name = wanted.resource.partition(".")
    if group not in ("limits", "requests") or name not in ("cpu", "memory"):
        raise MissingSourceError(f"unsupported container resource: {wanted.resource}")
    has = container.resources or pod.ResourceRequirements()
    written = (has.limits if group == "limits" else has.requests).get(name)
    whole: Fraction | float = about.cores if name == "cpu" else about.memory_bytes
    value = parse_quantity(str(written)) if written is not None else Fraction(whole) if group == "limits" else 0
    divisor = parse_quantity(str(wanted.divisor)) if wanted.divisor else 0
    return str(math.ceil(value / (divisor or 1)))


def _value_from(source: pod.EnvVarSource, one: pod.Container, about: About, find: Find) -> str | None:
    if source.config_map_key_ref:
        return _key(find, kinds.CONFIG_MAP.id, source.config_map_key_ref, about)
    if source.secret_key_ref:
        return _key(find, kinds.SECRET.id, source.secret_key_ref, about)
    if source.field_ref:
        return field_value(source.field_ref.field_path, about)
    # Other containers' resources can be asked for in volumes only: validation has seen to it.
    return resource_value(source.resource_field_ref or pod.ResourceFieldSelector(), one, about)


def _key(find: Find, resource: str, wanted: pod.EnvVarKeySelector, about: About) -> str | None:
    body = lookup(find, resource, wanted.name, optional=wanted.optional)
    value = content(resource, body).get(wanted.key) if body else None
    if value is None:
        if wanted.optional:
            return None
        where = f"{about.namespace}/{wanted.name}"
        raise MissingSourceError(f"couldn't find key {wanted.key} in {_WORDS[resource]} {where}")
    return _text(value, wanted.key, wanted.name)


def _from_whole_objects(one: pod.Container, about: About, find: Find) -> Iterator[tuple[str, str]]:
    """Later sources win. Keys that cannot name a variable are left out, as Kubernetes does."""
    for source in one.env_from:
        whole = source.config_map_ref or source.secret_ref or pod.ObjectReference()
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
        raise MissingSourceError(f'key {key} of "{name}" is not text, so no variable can hold it: use a volume')
    return text


def _container_references(one: pod.Container) -> Iterator[Reference]:
    for source in one.env_from:
        if source.config_map_ref:
            yield kinds.CONFIG_MAP.id, source.config_map_ref.name
        if source.secret_ref:
            yield kinds.SECRET.id, source.secret_ref.name
    for variable in one.env:
        if variable.value_from and variable.value_from.config_map_key_ref:
            yield kinds.CONFIG_MAP.id, variable.value_from.config_map_key_ref.name
        if variable.value_from and variable.value_from.secret_key_ref:
            yield kinds.SECRET.id, variable.value_from.secret_key_ref.name


def _listed(pairs: Mapping[str, str]) -> str:
    """As Kubernetes writes labels into a file: sorted lines of `key="value"`."""
    escaped = (
        (key, pairs[key].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for key in sorted(pairs)
    )
    return "\n".join(f'{key}="{value}"' for key, value in escaped)
