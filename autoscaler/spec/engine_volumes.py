"""Which volumes on the engine stand for the volumes of an instance. Pure."""

from collections import Counter
from collections.abc import Mapping

from autoscaler.runtime.protocol import Mount, Volume
from autoscaler.spec.env_sources import Find, MissingSourceError, lookup
from autoscaler.spec.volume_files import has_files, is_of_one_instance
from knoll.resources.models import pod
from knoll.resources.models.revision import Revision
from knoll.values import kinds
from knoll.values.quantity import parse_quantity


def engine_volumes(revision: Revision, instance: str, find: Find) -> dict[str, Volume]:
    """Name of a pod's volume to the engine's: one of a Revision, of a claim or of the instance alone.

    An emptyDir that one container alone has is not among them: it is a tmpfs of that container.

    Raises:
        MissingSourceError: a claim is missing.
    """
    meta, spec = revision.metadata, revision.spec
    about = f"{meta.namespace}/{meta.name}"
    together = shared(spec)
    found = {}
    for volume in spec.volumes:
        if has_files(volume):
            owner = instance if is_of_one_instance(volume) else meta.uid
            found[volume.name] = Volume(f"files.{owner}.{volume.name}", "files", owner, about)
        elif volume.persistent_volume_claim:
            found[volume.name] = _claim(volume.persistent_volume_claim, meta.namespace, find)
        elif volume.empty_dir and volume.name in together:
            found[volume.name] = Volume(f"scratch.{instance}.{volume.name}", "scratch", instance, about)
    return found


def pod_volume(volume: Volume) -> str:
    """Name of the pod's volume that a volume of files stands for."""
    return volume.name.rpartition(".")[2]


def folders(spec: pod.PodSpec, volume: str) -> list[str]:
    """What is mounted of a volume that containers write to: Kubernetes makes these folders when they are missing."""
    found = {each.sub_path for one in _containers(spec) for each in one.volume_mounts if each.name == volume}
    return sorted(found - {""})


def mount(where: pod.VolumeMount, volume: pod.Volume, known: Mapping[str, Volume]) -> Mount | None:
    """How a container gets a volume; None when it is of no kind that there is."""
    own = known.get(volume.name)
    if own is not None:
        claim = volume.persistent_volume_claim
        read_only = where.read_only or has_files(volume) or bool(claim and claim.read_only)
        return Mount(
            where.mount_path, "own", own.name, read_only=read_only, sub_path=where.sub_path, size_bytes=_size(volume)
        )
    if volume.empty_dir is None:
        return None
    size = _size(volume)
    return Mount(where.mount_path, "tmpfs", size_bytes=size, read_only=where.read_only)


def _size(volume: pod.Volume) -> int | None:
    """`sizeLimit` of an emptyDir in bytes; 0 is none, as on Kubernetes."""
    limit = volume.empty_dir.size_limit if volume.empty_dir else None
    return (int(parse_quantity(str(limit))) or None) if limit else None


def _claim(source: pod.PersistentVolumeClaimVolumeSource, namespace: str, find: Find) -> Volume:
    claim = lookup(find, kinds.VOLUME_CLAIM.id, source.claim_name, optional=False)
    if claim is None or "deletionTimestamp" in claim["metadata"]:
        raise MissingSourceError(f'persistentvolumeclaim "{source.claim_name}" is being deleted')
    uid = claim["metadata"]["uid"]
    return Volume(f"claim.{uid}", "claim", uid, f"{namespace}/{source.claim_name}")


def shared(spec: pod.PodSpec) -> set[str]:
    """emptyDirs that more than one container has, or one in parts."""
    empty = {volume.name for volume in spec.volumes if volume.empty_dir}
    mounts = [each for one in _containers(spec) for each in one.volume_mounts if each.name in empty]
    several = {name for name, count in Counter(each.name for each in mounts).items() if count > 1}
    return several | {each.name for each in mounts if each.sub_path}


def _containers(spec: pod.PodSpec) -> tuple[pod.Container, ...]:
    return (*spec.containers, *spec.init_containers)
