"""Size and constraints of a place, in the form that Docker Swarm expects. Pure.

The service itself is composed by `knoll.engine_proxy.reservations`.
"""

from collections.abc import Collection
from dataclasses import dataclass

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.runtime.docker import labels

NANO = 10**9
LEAST_NANO_CPUS, LEAST_MEMORY_BYTES = 10**6, 4 * 1024**2
"""Swarm rejects smaller reservations, except 0."""


@dataclass(frozen=True, slots=True, order=True)
class PlaceSize:
    """What a place reserves; places of the same size are interchangeable."""

    nano_cpus: int = 0
    memory_bytes: int = 0

    @property
    def is_empty(self) -> bool:
        return self == EMPTY


EMPTY = PlaceSize()


def size_of(request: ResourceRequest) -> PlaceSize:
    """Return the size of the smallest place that satisfies an instance's request."""
    nano_cpus, memory = round(request.cores * NANO), request.memory_bytes
    return PlaceSize(
        max(nano_cpus, LEAST_NANO_CPUS) if nano_cpus else 0, max(memory, LEAST_MEMORY_BYTES) if memory else 0
    )


def platform_label(platform: str) -> str:
    """Return the label of a platform's services, as a filter."""
    return f"{labels.PLATFORM}={platform}"


def node_constraints(allowed: Collection[str], existing: Collection[str]) -> tuple[str, ...]:
    """Return the constraints that restrict a place to the allowed nodes of a Swarm; all of them must be met.

    Args:
        allowed: ids of nodes, at least one.
        existing: ids of all nodes of the Swarm. One that joins it later is not excluded.
    """
    if len(allowed) == 1:
        return tuple(f"node.id=={node}" for node in allowed)
    return tuple(f"node.id!={node}" for node in sorted(set(existing) - set(allowed)))
