"""The engine's volumes for the volumes of an instance. Pure."""

from collections import Counter
from collections.abc import Mapping

from autoscaler.runtime.model import EngineVolume, Mount
from autoscaler.spec.env_sources import Find, MissingSourceError, lookup
from autoscaler.spec.volume_files import has_files, is_of_one_instance
from knoll.resources.models import pod
from knoll.resources.models.revision import Revision
from knoll.resources.models.volume import PersistentVolumeClaimVolumeSource, Volume, VolumeMount
from knoll.values import kinds
from knoll.values.quantity import parse_quantity


def engine_volumes(revision: Revision, instance: str, find: Find) -> dict[str, EngineVolume]:
    """Return the engine's volume for each volume of a pod, by name: of a Revision, of a claim or of the instance.

    An emptyDir that only one container mounts is not among them: it is a tmpfs of that container.

    Raises:
        MissingSourceError: a claim is missing.
    """
    meta, spec = revision.metadata, revision.spec
    about = f"{meta.namespace}/{meta.name}"
    several = shared(spec)
    volumes = {}
    for volume in spec.volumes:
        if has_files(volume):
            owner = instance if is_of_one_instance(volume) else meta.uid
            volumes[volume.name] = EngineVolume(f"files.{owner}.{volume.name}", "files", owner, about)
        elif volume.persistent_volume_claim:
            volumes[volume.name] = _claim(volume.persistent_volume_claim, meta.namespace, find)
        elif volume.empty_dir and volume.name in several:
            volumes[volume.name] = EngineVolume(f"scratch.{instance}.{volume.name}", "scratch", instance, about)
    return volumes


def pod_volume(volume: EngineVolume) -> str:
    """Return the name of the pod's volume for a volume of files."""
    return volume.name.rpartition(".")[2]


def folders(spec: pod.PodSpec, volume: str) -> list[str]:
    """Return the sub-paths that are mounted of a volume: Kubernetes creates these folders when they are missing."""
    mounts = (mount for container in _containers(spec) for mount in container.volume_mounts)
    return sorted({mount.sub_path for mount in mounts if mount.name == volume} - {""})


def mount(volume_mount: VolumeMount, volume: Volume, own_volumes: Mapping[str, EngineVolume]) -> Mount | None:
    """Return how a container mounts a volume; None for a volume of an unsupported kind."""
    own = own_volumes.get(volume.name)
    if own is not None:
        claim = volume.persistent_volume_claim
        read_only = volume_mount.read_only or has_files(volume) or bool(claim and claim.read_only)
        return Mount(
            volume_mount.mount_path,
            "own",
            own.name,
            read_only=read_only,
            sub_path=volume_mount.sub_path,
            size_bytes=_size(volume),
        )
    if volume.empty_dir is None:
        return None
    size = _size(volume)
    return Mount(volume_mount.mount_path, "tmpfs", size_bytes=size, read_only=volume_mount.read_only)


def _size(volume: Volume) -> int | None:
    """Return the `sizeLimit` of an emptyDir in bytes; 0 is none, as on Kubernetes."""
    limit = volume.empty_dir.size_limit if volume.empty_dir else None
    return (int(parse_quantity(str(limit))) or None) if limit else None


def _claim(source: PersistentVolumeClaimVolumeSource, namespace: str, find: Find) -> EngineVolume:
    claim = lookup(find, kinds.VOLUME_CLAIM.id, source.claim_name, optional=False)
    if claim is None or "deletionTimestamp" in claim["metadata"]:
        raise MissingSourceError(f'persistentvolumeclaim "{source.claim_name}" is being deleted')
    uid = claim["metadata"]["uid"]
    return EngineVolume(f"claim.{uid}", "claim", uid, f"{namespace}/{source.claim_name}")


def shared(spec: pod.PodSpec) -> set[str]:
    """Return the emptyDirs that more than one container mounts, or that one mounts in parts."""
    empty = {volume.name for volume in spec.volumes if volume.empty_dir}
    mounts = [mount for container in _containers(spec) for mount in container.volume_mounts if mount.name in empty]
    several = {name for name, count in Counter(mount.name for mount in mounts).items() if count > 1}
    return several | {mount.name for mount in mounts if mount.sub_path}


def _containers(spec: pod.PodSpec) -> tuple[pod.Container, ...]:
    return (*spec.containers, *spec.init_containers)
