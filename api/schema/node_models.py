"""Models of Nodes, with the fields that Knoll uses."""

# ruff: noqa: RUF012 (pydantic copies mutable defaults for each instance)

from typing import ClassVar

from pydantic import Field

from knoll.resources.models.base import Bool, Model, QuantityText, Resource
from knoll.resources.models.meta import Condition, ObjectMeta
from knoll.values import kinds
from knoll.values.kinds import Kind


class Taint(Model):
    """Keeps instances away from a node."""

    key: str = ""
    """Name of the taint."""
    value: str = ""
    """Value of the taint."""
    effect: str = ""
    """`NoSchedule`, `PreferNoSchedule` or `NoExecute`; only the taint of a cordoned node takes effect."""
    time_added: str = ""
    """Time at which the taint was added, RFC 3339."""


class NodeSpec(Model):
    """How the node may be used."""

    unschedulable: Bool | None = None
    """Whether the node gets no new instances (`kubectl cordon`)."""
    taints: tuple[Taint, ...] = ()
    """Taints of the node."""
    provider_id: str = ""
    """Id of the node in the engine's cluster."""
    pod_cidr: str = ""
    """Addresses of instances; they are the same on each node."""


class NodeCondition(Condition):
    """One observation about a node."""

    last_heartbeat_time: str = ""
    """Time of the last update of the condition, RFC 3339."""


class NodeAddress(Model):
    """An address of the node."""

    type: str = ""
    """`InternalIP` or `Hostname`."""
    address: str = ""
    """IP address or host name."""


class NodeSystemInfo(Model):
    """Software of the node."""

    kubelet_version: str = ""
    """Version of the platform that runs there."""
    container_runtime_version: str = ""
    """The container engine."""
    kernel_version: str = ""
    """Version of the kernel."""
    os_image: str = ""
    """Name of the operating system."""
    operating_system: str = ""
    """Kind of operating system."""
    architecture: str = ""
    """Architecture of the processors."""
    machine_id: str = Field("", alias="machineID")
    """Id of the machine."""
    system_uuid: str = Field("", alias="systemUUID")
    """UUID of the machine."""
    boot_id: str = Field("", alias="bootID")
    """Id of the last start of the machine."""
    kube_proxy_version: str = ""
    """Always empty."""


class NodeStatus(Model):
    """Actual state of the node."""

    capacity: dict[str, QuantityText] = {}
    """Resources of the machine: `cpu`, `memory`, `pods`."""
    allocatable: dict[str, QuantityText] = {}
    """Resources for instances."""
    conditions: tuple[NodeCondition, ...] = ()
    """Conditions, sorted by type."""
    addresses: tuple[NodeAddress, ...] = ()
    """Addresses at which the other machines reach it."""
    node_info: NodeSystemInfo = NodeSystemInfo()
    """Software of the node."""


class Node(Resource):
    """A machine that runs instances."""

    KIND: ClassVar[Kind] = kinds.NODE

    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata."""
    spec: NodeSpec = NodeSpec()
    """How the node may be used."""
    status: NodeStatus = NodeStatus()
    """Actual state of the node."""
