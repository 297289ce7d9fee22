"""Why no node takes an instance, in the words of Kubernetes' scheduler. Pure.

Swarm's own message counts machines but does not name the resource that is short, so each node is checked again here.

Source: Kubernetes, pkg/scheduler/framework/types.go (`FitError`), the plugins' `ErrReason…`;
moby/swarmkit, manager/scheduler/filter.go (`Explain`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from autoscaler.placement.protocol import Constraints
from autoscaler.placement.swarm.model import Cluster, SwarmNode
from autoscaler.placement.swarm.services import NANO, PlaceSize

CPU, MEMORY = "Insufficient cpu", "Insufficient memory"
UNREACHABLE = "node(s) had untolerated taint {node.kubernetes.io/unreachable: }"
UNSCHEDULABLE = "node(s) were unschedulable"
AFFINITY = "node(s) didn't match Pod's node affinity/selector"
VOLUME = "node(s) had volume node affinity conflict"
NOTHING = "no nodes available to schedule pods"
EPSILON = 1e-9


def explain(cluster: Cluster, size: PlaceSize, constraints: Constraints, reserved: Mapping[str, PlaceSize]) -> str:
    """Return why none of the nodes takes an instance.

    Args:
        size: what the instance requests.
        reserved: what our places reserve on each machine, by the machine's id.
    """
    if not cluster.names:
        return NOTHING
    counts = Counter(
        reason
        for name in cluster.names
        for reason in _of_node(cluster, name, size, constraints, reserved.get(cluster.names[name], PlaceSize()))
    )
    parts = sorted(f"{count} {reason}" for reason, count in counts.items())
    return f"0/{len(cluster.names)} nodes are available: {', '.join(parts)}."


def is_impossible(cluster: Cluster, size: PlaceSize, constraints: Constraints) -> bool:
    """Return whether an instance would not fit even if all nodes were empty."""
    return not any(
        _elsewhere(cluster, name, constraints) == "" and not list(_short(cluster.machines[cluster.names[name]], size))
        for name in cluster.names
    )


def fits(machine: SwarmNode, size: PlaceSize, reserved: PlaceSize) -> bool:
    """Return whether a machine has room for a place. Args: reserved: what our other places reserve there."""
    return not list(_short(machine, _together(size, reserved)))


def _together(size: PlaceSize, reserved: PlaceSize) -> PlaceSize:
    """Return what would be reserved, of the resources that are requested."""
    return PlaceSize(
        size.nano_cpus and size.nano_cpus + reserved.nano_cpus,
        size.memory_bytes and size.memory_bytes + reserved.memory_bytes,
    )


def _of_node(
    cluster: Cluster, name: str, size: PlaceSize, constraints: Constraints, reserved: PlaceSize
) -> tuple[str, ...]:
    if reason := _elsewhere(cluster, name, constraints):
        return (reason,)
    if short := tuple(_short(cluster.machines[cluster.names[name]], _together(size, reserved))):
        return short
    # The rest is reserved by services that are not ours.
    return (CPU,) if size.nano_cpus else (MEMORY,) if size.memory_bytes else (AFFINITY,)


def _elsewhere(cluster: Cluster, name: str, constraints: Constraints) -> str:
    """Return why a node is not allowed for an instance, whatever it requests; empty if it is."""
    machine = cluster.machines.get(cluster.names[name])
    if machine is None or machine.state != "ready":
        return UNREACHABLE
    if machine.availability != "active" or name in constraints.excluded:
        return UNSCHEDULABLE
    if name in constraints.unsuitable:
        return AFFINITY
    return VOLUME if constraints.node not in (None, name) else ""


def _short(machine: SwarmNode, size: PlaceSize) -> Iterator[str]:
    if size.nano_cpus > machine.cores * NANO + EPSILON:
        yield CPU
    if size.memory_bytes > machine.memory_bytes:
        yield MEMORY
