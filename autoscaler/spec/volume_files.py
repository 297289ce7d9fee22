"""The files in a Revision's volumes, from ConfigMaps, Secrets and the instance itself. Pure.

Source: Kubernetes, pkg/volume/{configmap,secret,projected,downwardapi}: `MakePayload`, `CollectData`.
"""

import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from autoscaler.runtime.model import File
from autoscaler.spec.env_sources import About, Find, MissingSourceError, content, field_value, lookup, resource_value
from knoll.resources.models import pod
from knoll.resources.models.env import ResourceFieldSelector
from knoll.resources.models.volume import (
    DownwardAPIVolumeFile,
    KeyToPath,
    ProjectedVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from knoll.values import kinds

DEFAULT_MODE = 0o644

Token = Callable[[ServiceAccountTokenProjection], bytes]
"""Returns a token of the Revision's service account."""


@dataclass(frozen=True, slots=True)
class _Source:
    resource: str
    name: str
    items: tuple[KeyToPath, ...]
    optional: bool | None


def has_files(volume: Volume) -> bool:
    """Return whether its content comes from objects of the platform."""
    return bool(volume.config_map or volume.secret or volume.projected)


def is_of_one_instance(volume: Volume) -> bool:
    """Return whether instances of a Revision cannot share it, because it contains the instance's name."""
    sources = volume.projected.sources if volume.projected else ()
    items = [item for source in sources if source.downward_api for item in source.downward_api.items]
    return any(item.field_ref and item.field_ref.field_path == "metadata.name" for item in items)


def has_token(volume: Volume) -> bool:
    """Return whether it contains a token, which must be renewed."""
    return any(source.service_account_token for source in (volume.projected.sources if volume.projected else ()))


def files(volume: Volume, spec: pod.PodSpec, about: About, find: Find, token: Token) -> dict[str, File]:
    """Return the files of a volume for which `has_files` holds, by relative path.

    Raises:
        MissingSourceError: an object or a key is missing and not optional; the message names the volume.
    """
    try:
        return _checked(_files(volume, spec, about, find, token))
    except MissingSourceError as error:
        raise MissingSourceError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error


def _files(volume: Volume, spec: pod.PodSpec, about: About, find: Find, token: Token) -> Iterable[tuple[str, File]]:
    if volume.config_map:
        source = volume.config_map
        config_map = _Source(kinds.CONFIG_MAP.id, source.name, source.items, source.optional)
        return _of_object(config_map, source.default_mode, find)
    if volume.secret:
        spec_of_secret = volume.secret
        items, optional = spec_of_secret.items, spec_of_secret.optional
        secret = _Source(kinds.SECRET.id, spec_of_secret.secret_name, items, optional)
        return _of_object(secret, spec_of_secret.default_mode, find)
    projected = volume.projected or ProjectedVolumeSource()
    return [pair for source in projected.sources for pair in _projected(source, projected, spec, about, find, token)]


def _projected(
    source: VolumeProjection,
    whole: ProjectedVolumeSource,
    spec: pod.PodSpec,
    about: About,
    find: Find,
    token: Token,
) -> Iterable[tuple[str, File]]:
    for resource, reference in ((kinds.CONFIG_MAP.id, source.config_map), (kinds.SECRET.id, source.secret)):
        if reference:
            of_object = _Source(resource, reference.name, reference.items, reference.optional)
            return _of_object(of_object, whole.default_mode, find)
    if source.service_account_token:
        # As on Kubernetes: readable for every user in the instance.
        return [(source.service_account_token.path, File(token(source.service_account_token), 0o644))]
    items = source.downward_api.items if source.downward_api else ()
    return [(item.path, File(_downward(item, spec, about), _mode(item.mode, whole.default_mode))) for item in items]


def _of_object(source: _Source, default_mode: int | None, find: Find) -> list[tuple[str, File]]:
    body = lookup(find, source.resource, source.name, optional=source.optional)
    values: Mapping[str, bytes] = content(source.resource, body) if body else {}
    if not source.items:
        return [(key, File(value, _mode(None, default_mode))) for key, value in values.items()]
    selected = []
    for item in source.items:
        if item.key in values:
            selected.append((item.path, File(values[item.key], _mode(item.mode, default_mode))))
        elif not source.optional:
            kind = "config" if source.resource == kinds.CONFIG_MAP.id else "secret"
            raise MissingSourceError(f"references non-existent {kind} key: {item.key} (in {source.name})")
    return selected


def _downward(item: DownwardAPIVolumeFile, spec: pod.PodSpec, about: About) -> bytes:
    if item.field_ref:
        path = item.field_ref.field_path
        if not path.startswith("metadata."):
            raise MissingSourceError(f"unsupported fieldPath: {path} (volumes support fields of metadata only)")
        return field_value(path, about).encode()
    selector = item.resource_field_ref or ResourceFieldSelector()
    for container in (*spec.containers, *spec.init_containers):
        if container.name == selector.container_name:
            return resource_value(selector, container, about).encode()
    raise MissingSourceError(f"container {selector.container_name!r} of {selector.resource} not found")


def _mode(own: int | None, default: int | None) -> int:
    return own if own is not None else default if default is not None else DEFAULT_MODE


def _checked(pairs: Iterable[tuple[str, File]]) -> dict[str, File]:
    """Later files win. Rejects paths that cannot exist together: one below another that is a file."""
    files = {posixpath.normpath(path): file for path, file in pairs}
    for path in files:
        if path.startswith(".."):
            raise MissingSourceError(f"{path!r} must not begin with '..': such names are reserved")
        parts = path.split("/")
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            if above in files:
                raise MissingSourceError(f"{path!r} cannot be in {above!r}, which is a file")
    return files
