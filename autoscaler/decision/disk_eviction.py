"""Who uses more of the disk than is theirs, and who goes when the disk is nearly full. Pure.

Source: Kubernetes, pkg/kubelet/eviction/eviction_manager.go (`localStorageEviction`) and helpers.go
(`evictionMessage`), with their words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autoscaler.runtime.protocol import InstanceSpec
from knoll.process.disk import quantity

LEAST_EVICTED_BYTES = 16 * 1024**2
"""Who uses less of the disk is not evicted for want of space: nothing would be gained."""
SCRATCH = "scratch."


@dataclass(frozen=True, slots=True)
class Usage:
    """What one instance has on the disk, in bytes."""

    containers: Mapping[str, int] = field(default_factory=dict)
    """What each container has written into its file system, by name."""
    volumes: Mapping[str, int] = field(default_factory=dict)
    """Its emptyDirs on disk, by the engine's name of them."""

    @property
    def total(self) -> int:
        return sum(self.containers.values()) + sum(self.volumes.values())


def overrun(spec: InstanceSpec, usage: Usage, default: int | None) -> str:
    """Why an instance is to be evicted for what it uses; empty when it is not.

    Args:
        default: limit of a container that has none, in bytes; None for none.
    """
    for name, limit in _volume_limits(spec).items():
        if usage.volumes.get(name, 0) > limit:
            volume = name.rpartition(".")[2]
            return f'Usage of EmptyDir volume "{volume}" exceeds the limit "{quantity(limit)}". '
    limits = {one.name: one.resources.storage_limit or default for one in spec.containers}
    known = [limit for limit in limits.values() if limit is not None]
    if len(known) == len(limits) and usage.total > sum(known):
        total = quantity(sum(known))
        if len(limits) > 1 or usage.volumes:
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
    for container, most in limits.items():
        if most is not None and usage.containers.get(container, 0) > most:
            return f'Container {container} exceeded its local ephemeral storage limit "{quantity(most)}". '
    return ""


def requested(spec: InstanceSpec) -> int:
    """What an instance asked for of the disk, in bytes. A limit without a request is a request, as on Kubernetes."""
    asked = [one.resources for one in spec.containers]
    return sum(one.storage_request if one.storage_request is not None else one.storage_limit or 0 for one in asked)


def to_evict(used: Mapping[str, tuple[InstanceSpec, Usage]]) -> str | None:
    """The instance to evict first when the disk is nearly full: the one furthest above its request; None if none is.

    Args: used: by instance.
    """
    above = {
        name: usage.total - requested(spec)
        for name, (spec, usage) in used.items()
        if usage.total >= LEAST_EVICTED_BYTES
    }
    name = max(above, key=lambda each: (above[each], each), default=None)
    return name if name is not None and above[name] > 0 else None


def pressure_message(spec: InstanceSpec, usage: Usage, threshold: int, free: int) -> str:
    """What is said of an instance that goes for want of space. Args: threshold, free: bytes."""
    message = (
        f"The node was low on resource: ephemeral-storage. Threshold quantity: {quantity(threshold)}, "
        f"available: {free // 1024}Ki. "
    )
    requests = {one.name: one.resources.storage_request or 0 for one in spec.containers}
    for container, size in usage.containers.items():
        request = requests.get(container, 0)
        if size > request:
            message += (
                f"Container {container} was using {size // 1024}Ki, request is {quantity(request)}, has larger "
                "consumption of ephemeral-storage. "
            )
    return message


def measures_volumes(specs: Iterable[InstanceSpec]) -> bool:
    """Whether any of these instances has an emptyDir on disk."""
    return any(
        mount.kind == "own" and mount.source.startswith(SCRATCH)
        for spec in specs
        for one in spec.containers
        for mount in one.mounts
    )


def _volume_limits(spec: InstanceSpec) -> dict[str, int]:
    return {
        mount.source: mount.size_bytes
        for one in (*spec.containers, *spec.init_containers)
        for mount in one.mounts
        if mount.kind == "own" and mount.size_bytes is not None
    }
