"""Models of the stored Kubernetes kinds, with the fields that are used here."""

# ruff: noqa: RUF012 (pydantic copies mutable defaults for each instance)

from typing import ClassVar

from pydantic import Field

from knoll.resources.models.base import Bool, Int32, IntOrString, Model, QuantityText, Resource
from knoll.resources.models.meta import Condition, ObjectMeta
from knoll.resources.models.pod import LocalObjectReference
from knoll.values import kinds
from knoll.values.kinds import Kind


class _Object(Resource):
    metadata: ObjectMeta = ObjectMeta()
    """Name, identity and labels."""


class ConfigMap(_Object):
    """Settings that containers read as variables or files; in `knative-serving` also the platform's own."""

    KIND: ClassVar[Kind] = kinds.CONFIG_MAP

    data: dict[str, str] = {}
    """Texts by name."""
    binary_data: dict[str, str] = {}
    """Bytes by name, as base64."""
    immutable: Bool | None = None
    """Whether the data can never be changed again."""


class Secret(_Object):
    """A ConfigMap for data that not every user should read."""

    KIND: ClassVar[Kind] = kinds.SECRET

    type: str = ""
    """What it is for. Default `Opaque`."""
    data: dict[str, str] = {}
    """Bytes by name, as base64."""
    string_data: dict[str, str] = {}
    """Texts by name, for writing only: they are put into `data`."""
    immutable: Bool | None = None
    """Whether the data can never be changed again."""


class NamespaceSpec(Model):
    """Set by the API."""

    finalizers: tuple[str, ...] = ()
    """Finalizers that must finish before the namespace is removed."""


class NamespaceStatus(Model):
    """Whether it can be used."""

    phase: str = ""
    """`Active`, or `Terminating` while what is in it is being removed."""
    conditions: tuple[Condition, ...] = ()
    """Observations."""


class Namespace(_Object):
    """A space of names for the objects of one team or purpose."""

    KIND: ClassVar[Kind] = kinds.NAMESPACE

    spec: NamespaceSpec = NamespaceSpec()
    """Nothing to choose."""
    status: NamespaceStatus = NamespaceStatus()
    """Whether it can be used."""


class ObjectRef(Model):
    """Any object."""

    api_version: str = ""
    """Group and version of the object."""
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
    """An identity that Revisions run under."""

    KIND: ClassVar[Kind] = kinds.SERVICE_ACCOUNT

    secrets: tuple[ObjectRef, ...] = ()
    """Secrets that it may use."""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    """Secrets with credentials for image registries."""
    automount_service_account_token: Bool | None = None
    """Whether instances get a token of it."""


class EventSource(Model):
    """The reporter of an event."""

    component: str = ""
    """Part of the platform."""
    host: str = ""
    """Machine."""


class EventSeries(Model):
    """Repetitions of an event."""

    count: Int32 = 0
    """How often it happened."""
    last_observed_time: str = ""
    """When it happened last, RFC 3339."""


class Event(_Object):
    """Something that happened to an object; `kubectl describe` shows it."""

    KIND: ClassVar[Kind] = kinds.EVENT

    involved_object: ObjectRef = ObjectRef()
    """The object it happened to."""
    reason: str = ""
    """The reason in one word, for programs."""
    message: str = ""
    """The reason in words, for people."""
    type: str = ""
    """`Normal` or `Warning`."""
    count: Int32 | None = None
    """How often it happened."""
    first_timestamp: str = ""
    """When it happened first, RFC 3339."""
    last_timestamp: str = ""
    """When it happened last, RFC 3339."""
    event_time: str = ""
    """When it happened, RFC 3339 with fractions."""
    source: EventSource = EventSource()
    """Who reports it."""
    action: str = ""
    """What was done."""
    related: ObjectRef | None = None
    """A related object."""
    reporting_component: str = ""
    """Who reports it."""
    reporting_instance: str = ""
    """Instance of the reporter."""
    series: EventSeries | None = None
    """Repetitions."""


class ResourceQuotaSpec(Model):
    """Bounds of a namespace."""

    hard: dict[str, QuantityText] = {}
    """Maximum of each resource that all objects may use together."""
    scopes: tuple[str, ...] = ()
    """What is counted."""


class ResourceQuotaStatus(Model):
    """What is used."""

    hard: dict[str, QuantityText] = {}
    """The bounds in force."""
    used: dict[str, QuantityText] = {}
    """What is used of each resource."""


class ResourceQuota(_Object):
    """Bounds of what the instances of a namespace may use together."""

    KIND: ClassVar[Kind] = kinds.RESOURCE_QUOTA

    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    """Bounds of a namespace."""
    status: ResourceQuotaStatus = ResourceQuotaStatus()
    """What is used."""


class VolumeResources(Model):
    """Size of a volume."""

    requests: dict[str, QuantityText] = {}
    """Requested size, under `storage`."""
    limits: dict[str, QuantityText] = {}
    """Largest acceptable size, under `storage`."""


class VolumeClaimSpec(Model):
    """The requested volume."""

    access_modes: tuple[str, ...] = ()
    """`ReadWriteOnce`, `ReadOnlyMany`, `ReadWriteMany` or `ReadWriteOncePod`."""
    resources: VolumeResources = VolumeResources()
    """Its size."""
    storage_class_name: str | None = None
    """Kind of storage."""
    volume_mode: str = ""
    """`Filesystem`."""
    volume_name: str = ""
    """The volume that was bound."""


class VolumeClaimStatus(Model):
    """The bound volume."""

    phase: str = ""
    """`Pending`, `Bound` or `Lost`."""
    access_modes: tuple[str, ...] = ()
    """How it can be used."""
    capacity: dict[str, QuantityText] = {}
    """Its size."""
    conditions: tuple[Condition, ...] = ()
    """Observations."""


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
    """Its name."""
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
    """An internal address."""

    type: str = ""
    """`ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`."""
    selector: dict[str, str] = {}
    """Labels of the instances behind it."""
    ports: tuple[ServicePort, ...] = ()
    """Its ports."""
    cluster_ip: str = Field("", alias="clusterIP")
    """Its address."""
    cluster_ips: tuple[str, ...] = Field((), alias="clusterIPs")
    """Its addresses."""
    external_ips: tuple[str, ...] = Field((), alias="externalIPs")
    """Further addresses."""
    external_name: str = ""
    """Host that the Service is an alias of."""
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
    """An address from outside."""

    ip: str = ""
    """Address."""
    hostname: str = ""
    """Name."""


class LoadBalancer(Model):
    """Addresses from outside."""

    ingress: tuple[Ingress, ...] = ()
    """The addresses."""


class CoreServiceStatus(Model):
    """Where it can be reached from outside."""

    load_balancer: LoadBalancer = LoadBalancer()
    """Addresses from outside."""
    conditions: tuple[Condition, ...] = ()
    """Observations."""


class CoreService(_Object):
    """An internal address; here the gateway, and a placeholder for each Route and tag."""

    KIND: ClassVar[Kind] = kinds.CORE_SERVICE

    spec: CoreServiceSpec = CoreServiceSpec()
    """An internal address."""
    status: CoreServiceStatus = CoreServiceStatus()
    """Where it can be reached from outside."""


class RoleRef(Model):
    """The role that is bound."""

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
    """The role that is bound; never changed."""
    subjects: tuple[RoleSubject, ...] = ()
    """Users, groups and ServiceAccounts that get the role."""


class RoleBinding(_Binding):
    """Grants a built-in role in one namespace."""

    KIND: ClassVar[Kind] = kinds.ROLE_BINDING


class ClusterRoleBinding(_Binding):
    """Grants a built-in role in all namespaces."""

    KIND: ClassVar[Kind] = kinds.CLUSTER_ROLE_BINDING


class PolicyRule(Model):
    """What a role allows: verbs on resources of groups, or on paths."""

    verbs: tuple[str, ...] = ()
    """`*` means all."""
    api_groups: tuple[str, ...] = ()
    """Groups of the resources; the core group is empty."""
    resources: tuple[str, ...] = ()
    """Plurals; a subresource is `plural/subresource`."""
    non_resource_urls: tuple[str, ...] = Field((), alias="nonResourceURLs")
    """Non-resource paths."""


class ClusterRole(_Object):
    """A built-in role; there are no others."""

    KIND: ClassVar[Kind] = kinds.CLUSTER_ROLE

    rules: tuple[PolicyRule, ...] = ()
    """What it allows."""


MODELS: dict[str, type[_Object]] = {
    model.KIND.id: model
    for model in (
        ConfigMap, Secret, Namespace, ServiceAccount, Event, ResourceQuota, PersistentVolumeClaim, CoreService,
        RoleBinding, ClusterRoleBinding, ClusterRole,
    )
}  # fmt: skip
"""By resource id."""
