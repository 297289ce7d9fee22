"""Validation of volumes. Pure."""

from collections.abc import Iterator, Mapping

from knoll.config.features import FeaturesConfig
from knoll.resources.models.volume import DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection
from knoll.resources.validation.problems import invalid, missing, missing_one_of, multiple_one_of, out_of_bounds
from knoll.resources.validation.unsupported_fields import refused
from knoll.values.errors import FieldError
from knoll.values.names import CONTROL, dns_1123_problems, printable
from knoll.values.quantity import parse_quantity

MODE_MAX = 0o777

_REFUSED = ("host_path", "csi", "image")
"""Volume types that are recognized, but not supported."""


def volume_problems(
    volume: Volume, path: str, before: Mapping[str, Volume], mounted: frozenset[str], features: FeaturesConfig
) -> Iterator[FieldError]:
    """Problems of one volume.

    Args:
        before: the volumes listed before it, by name.
        mounted: names of the volumes that any container mounts.
    """
    if volume.name in before:
        yield FieldError(f'duplicate volume name "{volume.name}"', (f"{path}.name",))
    if volume.name not in mounted:
        yield FieldError(f'volume with name "{volume.name}" not mounted', (f"{path}.name",))
    if not volume.name:
        yield missing(f"{path}.name")
    elif dns_1123_problems(volume.name):
        yield invalid(volume.name, f"{path}.name")
    yield from refused(volume, path)
    yield from _kinds(volume, path, features, any(getattr(volume, name) is not None for name in _REFUSED))
    if volume.secret is not None:
        if not volume.secret.secret_name:
            yield missing(f"{path}.secret.secretName")
        yield from _items(volume.secret.items, f"{path}.secret")
        yield from _mode(volume.secret.default_mode, f"{path}.secret.defaultMode")
    if volume.config_map is not None:
        if not volume.config_map.name:
            yield missing(f"{path}.configMap.name")
        yield from _items(volume.config_map.items, f"{path}.configMap")
        yield from _mode(volume.config_map.default_mode, f"{path}.configMap.defaultMode")
    if volume.projected is not None:
        for at, source in enumerate(volume.projected.sources):
            yield from _projection(source, f"{path}.projected.sources[{at}]")
        yield from _mode(volume.projected.default_mode, f"{path}.projected.defaultMode")
    yield from _empty_dir(volume, path, features)
    yield from _claim(volume, path, features)


def _kinds(volume: Volume, path: str, features: FeaturesConfig, other: bool) -> Iterator[FieldError]:
    kinds = {
        "secret": volume.secret,
        "configMap": volume.config_map,
        "projected": volume.projected,
        "emptyDir": volume.empty_dir,
        "persistentVolumeClaim": volume.persistent_volume_claim,
    }
    present = [name for name, projection in kinds.items() if projection is not None]
    if len(present) + other > 1:
        yield multiple_one_of(*(f"{path}.{name}" for name in present))
    elif not present and not other:
        offered = ["secret", "configMap", "projected"]
        offered += ["emptyDir"] if features.pod_spec_empty_dir == "Enabled" else []
        offered += ["persistentVolumeClaim"] if features.pod_spec_persistent_volume_claim == "Enabled" else []
        yield missing_one_of(*(f"{path}.{name}" for name in offered))


def _empty_dir(volume: Volume, path: str, features: FeaturesConfig) -> Iterator[FieldError]:
    source = volume.empty_dir
    if source is None:
        return
    if features.pod_spec_empty_dir != "Enabled":
        yield FieldError(f"EmptyDir volume support is disabled, but found EmptyDir volume {volume.name}", (path,))
    if source.medium not in ("", "Memory"):
        yield invalid(source.medium, f"{path}.emptyDir.medium")
    if source.size_limit is not None and parse_quantity(source.size_limit) < 0:
        yield invalid(source.size_limit, f"{path}.emptyDir.sizeLimit")


def _claim(volume: Volume, path: str, features: FeaturesConfig) -> Iterator[FieldError]:
    source = volume.persistent_volume_claim
    if source is None:
        return
    if features.pod_spec_persistent_volume_claim != "Enabled":
        reason = f"Persistent volume claim support is disabled, but found persistent volume claim {source.claim_name}"
        yield FieldError(reason, (path,), _turn_on("kubernetes.podspec-persistent-volume-claim"))
    if not source.read_only and features.pod_spec_persistent_volume_write != "Enabled":
        reason = (
            "Persistent volume write support is disabled, but found persistent volume claim "
            f"{source.claim_name} that is not read-only"
        )
        yield FieldError(reason, (path,), _turn_on("kubernetes.podspec-persistent-volume-write"))
    if not source.claim_name:
        yield missing(f"{path}.persistentVolumeClaim.claimName")


def _turn_on(key: str) -> str:
    return f'Set {key} to "enabled" in the ConfigMap config-features.'


def _projection(source: VolumeProjection, path: str) -> Iterator[FieldError]:
    yield from refused(source, path)
    kinds = {
        "secret": source.secret,
        "configMap": source.config_map,
        "serviceAccountToken": source.service_account_token,
        "downwardAPI": source.downward_api,
    }
    present = [name for name, projection in kinds.items() if projection is not None]
    if len(present) != 1:
        yield (multiple_one_of if present else missing_one_of)(*(f"{path}.{name}" for name in present or kinds))
    for name, projection in (("secret", source.secret), ("configMap", source.config_map)):
        if projection is not None:
            if not projection.name:
                yield missing(f"{path}.{name}.name")
            yield from _items(projection.items, f"{path}.{name}")
    if source.service_account_token is not None:
        yield from _path(source.service_account_token.path, f"{path}.serviceAccountToken.path")
    if source.downward_api is not None:
        for at, file in enumerate(source.downward_api.items):
            yield from _downward_file(file, f"{path}.downwardAPI.items[{at}]")


def _downward_file(file: DownwardAPIVolumeFile, path: str) -> Iterator[FieldError]:
    fields = (f"{path}.fieldRef", f"{path}.resourceFieldRef")
    if file.field_ref is None and file.resource_field_ref is None:
        yield missing_one_of(*fields)
    if file.field_ref is not None and file.resource_field_ref is not None:
        yield FieldError("Within a single item, cannot set both", fields)
    yield from _path(file.path, f"{path}.path")
    yield from _mode(file.mode, f"{path}.mode")


def _items(items: tuple[KeyToPath, ...], path: str) -> Iterator[FieldError]:
    for at, item in enumerate(items):
        here = f"{path}.items[{at}]"
        if not item.key:
            yield missing(f"{here}.key")
        yield from _path(item.path, f"{here}.path")
        yield from _mode(item.mode, f"{here}.mode")


def _path(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield missing(path)
    elif name.startswith(("/", "..")) or ".." in name.split("/") or CONTROL.search(name):
        reason = "must be a relative path without '..' and control characters, and must not start with '..'"
        yield invalid(printable(name), path, reason)


def _mode(mode: int | None, path: str) -> Iterator[FieldError]:
    if mode is not None and not 0 <= mode <= MODE_MAX:
        yield out_of_bounds(mode, 0, MODE_MAX, path)
