"""CPU and memory of the machine and the quotas of namespaces, and what instances have reserved of them. Pure.

Requests count, as on Kubernetes; actual usage does not. An instance without requests always fits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autoscaler.runtime.model import Capacity, ContainerSpec, InstanceSpec
from knoll.resources import quota
from knoll.values.json import Json

EPSILON = 1e-9
"""Tolerance in cores: sums of tenths are not exact."""


@dataclass(frozen=True, slots=True)
class QuotaCharge:
    """What one instance uses of the quotas of its namespace."""

    namespace: str
    amounts: quota.Amounts
    unset: Mapping[str, tuple[str, ...]]
    """Compute resource to the names of the containers that neither request nor limit it."""


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What one instance requests."""

    cores: float = 0.0
    memory_bytes: int = 0
    charge: QuotaCharge | None = field(default=None, compare=False)
    """None while it is idle: no quota counts it."""


def request_of(spec: InstanceSpec) -> ResourceRequest:
    """Return what an instance requests: its containers together, or the largest init container where that is more.

    Source: Kubernetes, "Init Containers", resource sharing within containers.
    """
    together = _sum(spec.containers)
    inits = [_sum([container]) for container in spec.init_containers]
    return ResourceRequest(
        max([together.cores, *(init.cores for init in inits)]),
        max([together.memory_bytes, *(init.memory_bytes for init in inits)]),
        quota_charge_of(spec),
    )


def quota_charge_of(spec: InstanceSpec) -> QuotaCharge:
    """Return what an instance uses of quotas, like its Pod on Kubernetes."""
    pod: Json = {"containers": _as_pod(spec.containers), "initContainers": _as_pod(spec.init_containers)}
    unset = {
        resource: tuple(container.name for container in spec.containers if resource not in _amounts(container))
        for resource in quota.COMPUTE
    }
    return QuotaCharge(spec.revision.partition("/")[0], quota.of_pod(pod), unset)


def _as_pod(containers: Iterable[ContainerSpec]) -> list[Json]:
    return [{"name": container.name, "resources": _resources(container)} for container in containers]


def _amounts(container: ContainerSpec) -> quota.Amounts:
    return quota.of_pod({"containers": _as_pod([container])})


def _resources(container: ContainerSpec) -> Json:
    resources = container.resources
    return {
        "requests": _quantities(resources.cpu_request, resources.memory_request),
        "limits": _quantities(resources.cpu_limit, resources.memory_limit),
    }


def _quantities(cores: float | None, memory_bytes: int | None) -> Json:
    return {"cpu": None if cores is None else f"{round(cores * 10**6)}u", "memory": memory_bytes}


def _sum(containers: Iterable[ContainerSpec]) -> ResourceRequest:
    each = [container.resources for container in containers]
    # A limit without a request is a request, as on Kubernetes.
    cores = sum(own.cpu_request if own.cpu_request is not None else own.cpu_limit or 0.0 for own in each)
    memory = sum(own.memory_request if own.memory_request is not None else own.memory_limit or 0 for own in each)
    return ResourceRequest(cores, memory)


@dataclass(frozen=True, slots=True)
class Machine:
    """The operator's settings for the machine; None where the engine's figure applies."""

    cores: float | None = None
    memory_bytes: int | None = None
    paused_memory_fraction: float = 0.25
    """Share of its memory that paused instances may keep together."""

    def override(self, reported: Capacity) -> Capacity:
        """Return the capacity that the engine reported, overridden by the operator's settings."""
        cores = reported.cores if self.cores is None else self.cores
        memory = reported.memory_bytes if self.memory_bytes is None else self.memory_bytes
        return Capacity(cores, memory)


def quota_refusal(quotas: Sequence[Json], charges: Iterable[QuotaCharge], charge: QuotaCharge, name: str) -> str:
    """Return why the quotas of its namespace do not allow a new instance, in Kubernetes' words; empty when they do.

    Args:
        quotas: the ResourceQuotas of the namespace.
        charges: what the existing instances of all namespaces are charged.
        charge: what the new instance would be charged.
        name: name of the new instance.
    """
    if not quotas:
        return ""
    used = quota.total(other.amounts for other in charges if other.namespace == charge.namespace)
    refusal = quota.refusal(quotas, used, charge.amounts, charge.unset)
    return f'pods "{name}" is forbidden: {refusal}' if refusal else ""


class Reservations:
    """CPU and memory of the machine, reserved by instance name."""

    def __init__(
        self, capacity: Capacity | None = None, quotas: Callable[[str], Iterable[Json]] = lambda namespace: ()
    ) -> None:
        """
        Args:
            capacity: of the machine; None while it is unknown, and everything fits.
            quotas: returns the ResourceQuotas of a namespace.
        """
        self.capacity = capacity
        self._quotas = quotas
        self._reserved: dict[str, ResourceRequest] = {}

    @property
    def total(self) -> ResourceRequest:
        """What all instances have reserved together."""
        requests = self._reserved.values()
        return ResourceRequest(
            sum(request.cores for request in requests), sum(request.memory_bytes for request in requests)
        )

    def reserve(self, name: str, request: ResourceRequest) -> str:
        """Reserve capacity for an instance; does nothing for one that has a reservation.

        Returns:
            Empty when it is reserved; otherwise the shortage, in the words of Kubernetes' scheduler.
        """
        if name in self._reserved:
            return ""
        if self.capacity is None:
            self._reserved[name] = request
            return ""
        total = self.total
        shortages = []
        if request.cores and total.cores + request.cores > self.capacity.cores + EPSILON:
            shortages.append("Insufficient cpu")
        if request.memory_bytes and total.memory_bytes + request.memory_bytes > self.capacity.memory_bytes:
            shortages.append("Insufficient memory")
        if shortages:
            return "0/1 nodes are available: " + ", ".join(f"1 {shortage}" for shortage in shortages) + "."
        self._reserved[name] = request
        return ""

    def quota_refusal(self, name: str, request: ResourceRequest) -> str:
        """Return why the quotas of its namespace do not allow a new instance, in Kubernetes' words.

        Empty when they do, and for an instance that has a reservation.
        """
        charge = request.charge
        if name in self._reserved or charge is None:
            return ""
        quotas = list(self._quotas(charge.namespace))
        charges = [reserved.charge for reserved in self._reserved.values() if reserved.charge]
        return quota_refusal(quotas, charges, charge, name)

    def put(self, name: str, request: ResourceRequest) -> None:
        """Record the reservation of an instance that exists, whether it fits or not."""
        self._reserved[name] = request

    def update(self, name: str, request: ResourceRequest) -> None:
        """Change a reservation: an instance that is paused needs no cores. Does nothing without one."""
        if name in self._reserved:
            self._reserved[name] = request

    def release(self, name: str) -> None:
        """Release the reservation of an instance, if it has one."""
        self._reserved.pop(name, None)
