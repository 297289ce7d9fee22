"""What the machine and the quotas of namespaces have for instances, and who has it. Pure.

Requests count, as on Kubernetes; what instances really use does not. An instance without requests always fits.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from autoscaler.runtime.protocol import Capacity, ContainerSpec, InstanceSpec
from knoll.resources import quota
from knoll.values.json import Json

EPSILON = 1e-9
"""Of cores: sums of tenths are not exact."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one instance counts for in the quotas of its namespace."""

    namespace: str
    amounts: quota.Amounts
    unsaid: Mapping[str, tuple[str, ...]]
    """Names of the containers that ask for none of a compute resource."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one instance requests."""

    cores: float = 0.0
    memory_bytes: int = 0
    charge: Charge | None = field(default=None, compare=False)
    """None while it rests: no quota counts it."""


def need_of(spec: InstanceSpec) -> Need:
    """What an instance requests: its containers together, or the largest init container where that is more.

    Source: Kubernetes, "Init Containers", resource sharing within containers.
    """
    together = _sum(spec.containers)
    each = [_sum([one]) for one in spec.init_containers]
    return Need(
        max([together.cores, *(one.cores for one in each)]),
        max([together.memory_bytes, *(one.memory_bytes for one in each)]),
        charge_of(spec),
    )


def charge_of(spec: InstanceSpec) -> Charge:
    """What an instance counts for in quotas: as its Pod does."""
    shown: Json = {"containers": _shown(spec.containers), "initContainers": _shown(spec.init_containers)}
    unsaid = {name: tuple(one.name for one in spec.containers if name not in _amounts(one)) for name in quota.COMPUTE}
    return Charge(spec.revision.partition("/")[0], quota.of_pod(shown), unsaid)


def _shown(containers: Iterable[ContainerSpec]) -> list[Json]:
    return [{"name": one.name, "resources": _resources(one)} for one in containers]


def _amounts(container: ContainerSpec) -> quota.Amounts:
    return quota.of_pod({"containers": _shown([container])})


def _resources(container: ContainerSpec) -> Json:
    asked = container.resources
    return {
        "requests": _said(asked.cpu_request, asked.memory_request),
        "limits": _said(asked.cpu_limit, asked.memory_limit),
    }


def _said(cores: float | None, memory_bytes: int | None) -> Json:
    return {"cpu": None if cores is None else f"{round(cores * 10**6)}u", "memory": memory_bytes}


def _sum(containers: Iterable[ContainerSpec]) -> Need:
    asked = [one.resources for one in containers]
    # A limit without a request is a request, as on Kubernetes.
    cores = sum(one.cpu_request if one.cpu_request is not None else one.cpu_limit or 0.0 for one in asked)
    memory = sum(one.memory_request if one.memory_request is not None else one.memory_limit or 0 for one in asked)
    return Need(cores, memory)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the operator says of the machine; None where the engine is to be asked."""

    cores: float | None = None
    memory_bytes: int | None = None
    paused_memory_fraction: float = 0.25
    """How much of its memory paused instances may keep together."""

    def over(self, told: Capacity) -> Capacity:
        """What the engine told, with what the operator said over it."""
        cores = told.cores if self.cores is None else self.cores
        memory = told.memory_bytes if self.memory_bytes is None else self.memory_bytes
        return Capacity(cores, memory)


class Room:
    """The machine's cores and memory, handed out by name."""

    def __init__(
        self, capacity: Capacity | None = None, quotas: Callable[[str], Iterable[Json]] = lambda namespace: ()
    ) -> None:
        """
        Args:
            capacity: of the machine; None: not known yet, and everything fits.
            quotas: gives the ResourceQuotas of a namespace.
        """
        self.capacity = capacity
        self._quotas = quotas
        self._held: dict[str, Need] = {}

    @property
    def held(self) -> Need:
        """By all together."""
        return Need(sum(one.cores for one in self._held.values()), sum(one.memory_bytes for one in self._held.values()))

    def take(self, name: str, need: Need) -> str:
        """Take room for an instance; asking again for one that has room changes nothing.

        Returns:
            Empty when it has it; otherwise what is missing, in the words of Kubernetes' scheduler.
        """
        if name in self._held:
            return ""
        if self.capacity is None:
            self._held[name] = need
            return ""
        held = self.held
        missing = []
        if need.cores and held.cores + need.cores > self.capacity.cores + EPSILON:
            missing.append("Insufficient cpu")
        if need.memory_bytes and held.memory_bytes + need.memory_bytes > self.capacity.memory_bytes:
            missing.append("Insufficient memory")
        if missing:
            return "0/1 nodes are available: " + ", ".join(f"1 {one}" for one in missing) + "."
        self._held[name] = need
        return ""

    def over_quota(self, name: str, need: Need) -> str:
        """Why the quotas of its namespace do not allow an instance that has no room yet, in Kubernetes' words.

        Empty when they do, and for one that has room.
        """
        charge = need.charge
        if name in self._held or charge is None:
            return ""
        quotas = list(self._quotas(charge.namespace))
        if not quotas:
            return ""
        charges = [one.charge for one in self._held.values() if one.charge]
        used = quota.total(one.amounts for one in charges if one.namespace == charge.namespace)
        why = quota.refusal(quotas, used, charge.amounts, charge.unsaid)
        return f'pods "{name}" is forbidden: {why}' if why else ""

    def put(self, name: str, need: Need) -> None:
        """An instance is there already, whether it fits or not."""
        self._held[name] = need

    def keep(self, name: str, need: Need) -> None:
        """An instance that has room needs another amount of it: one that is paused needs no cores."""
        if name in self._held:
            self._held[name] = need

    def free(self, name: str) -> None:
        """An instance is gone; one that had nothing is fine."""
        self._held.pop(name, None)
