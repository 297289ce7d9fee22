"""Models of the stored Kubernetes kinds, with the fields that are used here."""

# ruff: noqa: RUF012 (pydantic copies mutable defaults for each instance)

from typing import ClassVar

from pydantic import Field

from api.schema.node_models import Node
from knoll.resources.models.base import Bool, Int32, IntOrString, Model, QuantityText, Resource
from knoll.resources.models.meta import Condition, ObjectMeta
from knoll.resources.models.pod import LocalObjectReference
from knoll.values import kinds
from knoll.values.kinds import Kind


class _Object(Resource):
    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata."""


class ConfigMap(_Object):
    """Settings that containers can read as variables or files; in `knative-serving` also those of the platform."""

    KIND: ClassVar[Kind] = kinds.CONFIG_MAP

    data: dict[str, str] = {}
    """Strings by key."""
    binary_data: dict[str, str] = {}
    """Binary data by key, base64-encoded."""
    immutable: Bool | None = None
    """Whether the data cannot be changed."""


class Secret(_Object):
    """Confidential data, such as passwords and keys."""

    KIND: ClassVar[Kind] = kinds.SECRET

    type: str = ""
    """Type of the data. Default `Opaque`."""
    data: dict[str, str] = {}
    """Binary data by key, base64-encoded."""
    string_data: dict[str, str] = {}
    """Strings by key, write-only: they are added to `data`."""
    immutable: Bool | None = None
    """Whether the data cannot be changed."""


class NamespaceSpec(Model):
    """Set by the API."""

    finalizers: tuple[str, ...] = ()
    """Finalizers that must finish before the namespace is removed."""


class NamespaceStatus(Model):
    """State of the namespace."""

    phase: str = ""
    """`Active`, or `Terminating` while its objects are being deleted."""
    conditions: tuple[Condition, ...] = ()
    """Conditions, sorted by type."""


class Namespace(_Object):
    """A scope for names, which groups the objects of one team or purpose."""

    KIND: ClassVar[Kind] = kinds.NAMESPACE

    spec: NamespaceSpec = NamespaceSpec()
    """Set by the API."""
    status: NamespaceStatus = NamespaceStatus()
    """State of the namespace."""


class ObjectRef(Model):
    """Reference to any object."""

    api_version: str = ""
    """API group and version of the object."""
    kind: str = ""
    """Kind of the object."""
    namespace: str = ""
    """Namespace of the object."""
    name: str = ""
    """Name of the object."""
    uid: str = ""
    """uid of the object."""
    resource_version: str = ""
    """Version of the object."""
    field_path: str = ""
    """Part of the object."""


class ServiceAccount(_Object):
    """An identity of Revisions and of clients of the API."""

    KIND: ClassVar[Kind] = kinds.SERVICE_ACCOUNT

    secrets: tuple[ObjectRef, ...] = ()
    """Secrets that it may use."""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    """Secrets with credentials for image registries."""
    automount_service_account_token: Bool | None = None
    """Whether instances get its token."""


class EventSource(Model):
    """The reporter of an event."""

    component: str = ""
    """Component of the platform."""
    host: str = ""
    """Host of the component."""


class EventSeries(Model):
    """Repetitions of an event."""

    count: Int32 = 0
    """Number of occurrences."""
    last_observed_time: str = ""
    """Time of the last occurrence, RFC 3339."""


class Event(_Object):
    """An event of an object, shown by `kubectl describe`."""

    KIND: ClassVar[Kind] = kinds.EVENT

    involved_object: ObjectRef = ObjectRef()
    """The object of the event."""
    reason: str = ""
    """Machine-readable reason in CamelCase."""
    message: str = ""
    """Human-readable description."""
    type: str = ""
    """`Normal` or `Warning`."""
    count: Int32 | None = None
    """Number of occurrences."""
    first_timestamp: str = ""
    """Time of the first occurrence, RFC 3339."""
    last_timestamp: str = ""
    """Time of the last occurrence, RFC 3339."""
    event_time: str = ""
    """Time of the occurrence, RFC 3339 with fractions of a second."""
    source: EventSource = EventSource()
    """Reporter of the event."""
    action: str = ""
    """Action that was taken."""
    related: ObjectRef | None = None
    """A related object."""
    reporting_component: str = ""
    """Reporter of the event."""
    reporting_instance: str = ""
    """Instance of the reporter."""
    series: EventSeries | None = None
    """Repetitions."""


class ResourceQuotaSpec(Model):
    """Resource limits of a namespace."""

    hard: dict[str, QuantityText] = {}
    """Maximum of each resource for all objects of the namespace in total."""
    scopes: tuple[str, ...] = ()
    """Scopes of the objects that are counted."""


class ResourceQuotaStatus(Model):
    """Current usage."""

    hard: dict[str, QuantityText] = {}
    """Current limits."""
    used: dict[str, QuantityText] = {}
    """Usage of each resource."""


class ResourceQuota(_Object):
    """Limits on the total resources of a namespace."""

    KIND: ClassVar[Kind] = kinds.RESOURCE_QUOTA

    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    """Resource limits of a namespace."""
    status: ResourceQuotaStatus = ResourceQuotaStatus()
    """Current usage."""


class VolumeResources(Model):
    """Size of a volume."""

    requests: dict[str, QuantityText] = {}
    """Requested size, under `storage`."""
    limits: dict[str, QuantityText] = {}
    """Maximum size, under `storage`."""


class VolumeClaimSpec(Model):
    """The requested volume."""

    access_modes: tuple[str, ...] = ()
    """`ReadWriteOnce`, `ReadOnlyMany`, `ReadWriteMany` or `ReadWriteOncePod`."""
    resources: VolumeResources = VolumeResources()
    """Size of the volume."""
    storage_class_name: str | None = None
    """Storage class."""
    volume_mode: str = ""
    """`Filesystem`."""
    volume_name: str = ""
    """The volume that was bound."""


class VolumeClaimStatus(Model):
    """The bound volume."""

    phase: str = ""
    """`Pending`, `Bound` or `Lost`."""
    access_modes: tuple[str, ...] = ()
    """Access modes of the volume."""
    capacity: dict[str, QuantityText] = {}
    """Size of the volume."""
    conditions: tuple[Condition, ...] = ()
    """Conditions, sorted by type."""


class PersistentVolumeClaim(_Object):
    """A volume that outlives instances; a Docker volume here."""

    KIND: ClassVar[Kind] = kinds.VOLUME_CLAIM

    spec: VolumeClaimSpec = VolumeClaimSpec()
    """The requested volume."""
    status: VolumeClaimStatus = VolumeClaimStatus()
    """The bound volume."""


class ServicePort(Model):
    """A port of a core Service."""

    name: str = ""
    """Name of the port."""
    protocol: str = ""
    """`TCP` or `UDP`."""
    app_protocol: str = ""
    """Application protocol."""
    port: Int32 = 0
    """Port of the Service."""
    target_port: IntOrString = None
    """Port number or name in the instances."""
    node_port: Int32 | None = None
    """Port of the node."""


class CoreServiceSpec(Model):
    """A cluster-local address."""

    type: str = ""
    """`ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`."""
    selector: dict[str, str] = {}
    """Labels of the instances that receive the traffic."""
    ports: tuple[ServicePort, ...] = ()
    """Ports of the Service."""
    cluster_ip: str = Field("", alias="clusterIP")
    """Cluster IP address."""
    cluster_ips: tuple[str, ...] = Field((), alias="clusterIPs")
    """Cluster IP addresses."""
    external_ips: tuple[str, ...] = Field((), alias="externalIPs")
    """External addresses."""
    external_name: str = ""
    """Host for which the Service is an alias."""
    session_affinity: str = ""
    """`None` or `ClientIP`."""
    load_balancer_ip: str = Field("", alias="loadBalancerIP")
    """Requested address of the load balancer."""
    external_traffic_policy: str = ""
    """Not used here."""
    internal_traffic_policy: str = ""
    """Not used here."""
    ip_families: tuple[str, ...] = ()
    """Not used here."""
    ip_family_policy: str = ""
    """Not used here."""
    publish_not_ready_addresses: Bool | None = None
    """Not used here."""
    health_check_node_port: Int32 | None = None
    """Not used here."""
    allocate_load_balancer_node_ports: Bool | None = None
    """Not used here."""
    load_balancer_class: str = ""
    """Not used here."""
    load_balancer_source_ranges: tuple[str, ...] = ()
    """Not used here."""


class Ingress(Model):
    """An external address."""

    ip: str = ""
    """IP address."""
    hostname: str = ""
    """Name."""


class LoadBalancer(Model):
    """External addresses."""

    ingress: tuple[Ingress, ...] = ()
    """External addresses."""


class CoreServiceStatus(Model):
    """External addresses of the Service."""

    load_balancer: LoadBalancer = LoadBalancer()
    """External addresses."""
    conditions: tuple[Condition, ...] = ()
    """Conditions, sorted by type."""


class CoreService(_Object):
    """A cluster-local address; on this platform the gateway's, and a placeholder for each Route and tag."""

    KIND: ClassVar[Kind] = kinds.CORE_SERVICE

    spec: CoreServiceSpec = CoreServiceSpec()
    """A cluster-local address."""
    status: CoreServiceStatus = CoreServiceStatus()
    """External addresses of the Service."""


class RoleRef(Model):
    """The role that is granted."""

    api_group: str = ""
    """`rbac.authorization.k8s.io`."""
    kind: str = ""
    """`ClusterRole`."""
    name: str = ""
    """`view`, `edit`, `admin` or `cluster-admin`."""


class RoleSubject(Model):
    """A subject of a binding."""

    kind: str = ""
    """`ServiceAccount`, `User` or `Group`."""
    api_group: str = ""
    """`rbac.authorization.k8s.io`; empty for ServiceAccounts."""
    name: str = ""
    """Name."""
    namespace: str = ""
    """Namespace of a ServiceAccount."""


class _Binding(_Object):
    role_ref: RoleRef = RoleRef()
    """The role that is granted. Immutable."""
    subjects: tuple[RoleSubject, ...] = ()
    """Users, groups and ServiceAccounts that get the role."""


class RoleBinding(_Binding):
    """Grants a built-in role in one namespace."""

    KIND: ClassVar[Kind] = kinds.ROLE_BINDING


class ClusterRoleBinding(_Binding):
    """Grants a built-in role in all namespaces."""

    KIND: ClassVar[Kind] = kinds.CLUSTER_ROLE_BINDING


class PolicyRule(Model):
    """A rule of a role: verbs on resources or on non-resource paths."""

    verbs: tuple[str, ...] = ()
    """`*` means all."""
    api_groups: tuple[str, ...] = ()
    """API groups of the resources; the core group is empty."""
    resources: tuple[str, ...] = ()
    """Plural names of resources; a subresource is `plural/subresource`."""
    non_resource_urls: tuple[str, ...] = Field((), alias="nonResourceURLs")
    """Non-resource paths."""


class ClusterRole(_Object):
    """A built-in role; there are no others."""

    KIND: ClassVar[Kind] = kinds.CLUSTER_ROLE

    rules: tuple[PolicyRule, ...] = ()
    """Rules of the role."""


MODELS: dict[str, type[Resource]] = {
    model.KIND.id: model
    for model in (
        ConfigMap, Secret, Namespace, ServiceAccount, Event, ResourceQuota, PersistentVolumeClaim, CoreService,
        RoleBinding, ClusterRoleBinding, ClusterRole, Node,
    )
}  # fmt: skip
"""By resource id."""
