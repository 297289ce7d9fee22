"""Which instances exceed their disk limits, and which one to evict when the disk is nearly full. Pure.

Source: Kubernetes, pkg/kubelet/eviction/eviction_manager.go (`localStorageEviction`) and helpers.go
(`evictionMessage`), with their messages.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autoscaler.runtime.model import InstanceSpec
from knoll.process.disk import quantity

LEAST_EVICTED_BYTES = 16 * 1024**2
"""An instance that uses less of the disk is not evicted under pressure: that would free too little."""
SCRATCH = "scratch."


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What one instance has on the disk, in bytes."""

    containers: Mapping[str, int] = field(default_factory=dict)
    """What each container has written into its file system, by name."""
    volumes: Mapping[str, int] = field(default_factory=dict)
    """Its emptyDirs on disk, by their names on the engine."""

    @property
    def total(self) -> int:
        return sum(self.containers.values()) + sum(self.volumes.values())


def overrun(spec: InstanceSpec, usage: DiskUsage, default: int | None) -> str:
    """Return why an instance has to be evicted for its disk usage; empty when it need not be.

    Args:
        default: limit, in bytes, of a container that sets none; None is unlimited.
    """
    for name, limit in _volume_limits(spec).items():
        if usage.volumes.get(name, 0) > limit:
            volume = name.rpartition(".")[2]
            return f'Usage of EmptyDir volume "{volume}" exceeds the limit "{quantity(limit)}". '
    limits = {container.name: container.resources.storage_limit or default for container in spec.containers}
    set_limits = [limit for limit in limits.values() if limit is not None]
    if len(set_limits) == len(limits) and usage.total > sum(set_limits):
        total = quantity(sum(set_limits))
        if len(limits) > 1 or usage.volumes:
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
    for container, most in limits.items():
        if most is not None and usage.containers.get(container, 0) > most:
            return f'Container {container} exceeded its local ephemeral storage limit "{quantity(most)}". '
    return ""


def requested(spec: InstanceSpec) -> int:
    """Return the disk space that an instance requests, in bytes. A limit without a request counts as a request."""
    each = [container.resources for container in spec.containers]
    return sum(own.storage_request if own.storage_request is not None else own.storage_limit or 0 for own in each)


def to_evict(used: Mapping[str, tuple[InstanceSpec, DiskUsage]]) -> str | None:
    """Return the instance to evict first under disk pressure: the one furthest above its request; None if none is.

    Args: used: by instance.
    """
    above = {
        name: usage.total - requested(spec)
        for name, (spec, usage) in used.items()
        if usage.total >= LEAST_EVICTED_BYTES
    }
    name = max(above, key=lambda each: (above[each], each), default=None)
    return name if name is not None and above[name] > 0 else None


def pressure_message(spec: InstanceSpec, usage: DiskUsage, threshold: int, free: int) -> str:
    """Return the message of an eviction under disk pressure. Args: threshold, free: bytes."""
    message = (
        f"The node was low on resource: ephemeral-storage. Threshold quantity: {quantity(threshold)}, "
        f"available: {free // 1024}Ki. "
    )
    requests = {container.name: container.resources.storage_request or 0 for container in spec.containers}
    for container, size in usage.containers.items():
        request = requests.get(container, 0)
        if size > request:
            message += (
                f"Container {container} was using {size // 1024}Ki, request is {quantity(request)}, has larger "
                "consumption of ephemeral-storage. "
            )
    return message


def measures_volumes(specs: Iterable[InstanceSpec]) -> bool:
    """Return whether any of these instances has an emptyDir on disk."""
    return any(
        mount.kind == "own" and mount.source.startswith(SCRATCH)
        for spec in specs
        for container in spec.containers
        for mount in container.mounts
    )


def _volume_limits(spec: InstanceSpec) -> dict[str, int]:
    return {
        mount.source: mount.size_bytes
        for container in (*spec.containers, *spec.init_containers)
        for mount in container.mounts
        if mount.kind == "own" and mount.size_bytes is not None
    }
