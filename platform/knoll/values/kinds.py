"""The kinds of objects: their names on the wire and in discovery.

A *resource id* such as `services.serving.knative.dev` names a kind everywhere inside Knoll: in store calls, keys and
caches. Kinds of the core group have a bare plural (`configmaps`).
"""

from dataclasses import dataclass, field

SERVING = "serving.knative.dev"
BUILD = "build.knoll.dev"
NETWORKING = "networking.internal.knative.dev"

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
"""Verbs of an ordinary kind, as in discovery."""
_READ_ONLY = ("get", "list", "watch")
_READ_AND_DELETE = ("delete", "deletecollection", *_READ_ONLY)


def is_builtin(group: str) -> bool:
    """Whether an API group is one of Kubernetes' own."""
    return "." not in group or group.endswith(".k8s.io")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    group: str
    """API group; empty for the core group."""
    version: str
    """The version in which it is stored and served."""
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    also_versions: tuple[str, ...] = ()
    """Older versions that are accepted and stored as `version`."""
    verbs: tuple[str, ...] = ALL_VERBS
    """What clients may do; kinds that show actual state are read-only."""
    subresources: tuple[str, ...] = ()
    """Served paths below an object: `status`, `log`. With `status`, a write to the object does not change its status,
    and a write to the subresource changes nothing else."""
    id: str = field(init=False)
    """The resource id."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.plural}.{self.group}" if self.group else self.plural)

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version in which it is served, the preferred one first."""
        return (self.version, *self.also_versions)

    @property
    def builtin(self) -> bool:
        """Whether it is one of Kubernetes' own kinds, whose typed clients behave differently."""
        return is_builtin(self.group)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


_KNATIVE = ("all", "knative", "serving")
_OLDER = ("v1beta1", "v1alpha1")
_STATUS = ("status",)


def _serving(kind: str, plural: str, short_names: tuple[str, ...]) -> Kind:
    return Kind(
        SERVING, "v1", kind, plural, kind.lower(), short_names, _KNATIVE, also_versions=_OLDER, subresources=_STATUS
    )


SERVICE = _serving("Service", "services", ("kservice", "ksvc"))
CONFIGURATION = _serving("Configuration", "configurations", ("config", "cfg"))
REVISION = _serving("Revision", "revisions", ("rev",))
ROUTE = _serving("Route", "routes", ("rt",))
DOMAIN_MAPPING = Kind(
    SERVING, "v1beta1", "DomainMapping", "domainmappings", "domainmapping", ("dm",), _KNATIVE,
    also_versions=("v1alpha1",), subresources=_STATUS,
)  # fmt: skip
BUILD_KIND = Kind(BUILD, "v1alpha1", "Build", "builds", "build", (), ("all", "knoll"), subresources=("status", "log"))
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", "namespace", ("ns",), namespaced=False, subresources=_STATUS)
NODE = Kind(
    "", "v1", "Node", "nodes", "node", ("no",), namespaced=False,
    verbs=("delete", "deletecollection", "get", "list", "patch", "update", "watch"), subresources=_STATUS,
)  # fmt: skip
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", "configmap", ("cm",))
SECRET = Kind("", "v1", "Secret", "secrets", "secret")
SERVICE_ACCOUNT = Kind(
    "", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", ("sa",), subresources=("token",)
)  # fmt: skip
EVENT = Kind("", "v1", "Event", "events", "event", ("ev",))
RESOURCE_QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas", "resourcequota", ("quota",), subresources=_STATUS)
VOLUME_CLAIM = Kind(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", ("pvc",), subresources=_STATUS
)
CORE_SERVICE = Kind("", "v1", "Service", "services", "service", ("svc",), subresources=_STATUS)
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "rolebinding")
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding",
    namespaced=False,
)  # fmt: skip
CLUSTER_ROLE = Kind(
    "rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "clusterrole", namespaced=False, verbs=_READ_ONLY
)  # fmt: skip
POD = Kind(
    "", "v1", "Pod", "pods", "pod", ("po",), ("all",), verbs=_READ_AND_DELETE, subresources=("log", "eviction")
)  # fmt: skip
DEPLOYMENT = Kind(
    "apps", "v1", "Deployment", "deployments", "deployment", ("deploy",), ("all",), verbs=_READ_ONLY
)  # fmt: skip
ENDPOINT_SLICE = Kind(
    "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", verbs=_READ_ONLY
)  # fmt: skip
POD_AUTOSCALER = Kind(
    "autoscaling.internal.knative.dev", "v1alpha1", "PodAutoscaler", "podautoscalers", "podautoscaler",
    ("kpa", "pa"), ("knative-internal", "autoscaling"), verbs=_READ_ONLY,
)  # fmt: skip
HORIZONTAL_POD_AUTOSCALER = Kind(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler",
    ("hpa",), ("all",), verbs=_READ_ONLY,
)  # fmt: skip
CLUSTER_DOMAIN_CLAIM = Kind(
    NETWORKING, "v1alpha1", "ClusterDomainClaim", "clusterdomainclaims", "clusterdomainclaim",
    ("cdc",), ("knative-internal", "networking"), namespaced=False,
)  # fmt: skip
SERVERLESS_SERVICE = Kind(
    NETWORKING, "v1alpha1", "ServerlessService", "serverlessservices", "serverlessservice",
    ("sks",), ("knative-internal", "networking"), verbs=_READ_ONLY,
)  # fmt: skip

KINDS: tuple[Kind, ...] = (
    SERVICE, CONFIGURATION, REVISION, ROUTE, DOMAIN_MAPPING, CLUSTER_DOMAIN_CLAIM, BUILD_KIND,
    NAMESPACE, NODE, CONFIG_MAP, SECRET, SERVICE_ACCOUNT, EVENT, RESOURCE_QUOTA, VOLUME_CLAIM, CORE_SERVICE,
    ROLE_BINDING, CLUSTER_ROLE_BINDING, CLUSTER_ROLE,
    POD, DEPLOYMENT, ENDPOINT_SLICE, POD_AUTOSCALER, HORIZONTAL_POD_AUTOSCALER, SERVERLESS_SERVICE,
)  # fmt: skip
"""Every kind. ClusterRoles are the built-in ones, created at startup; the last line has kinds that show actual state
and are written by controllers only."""
BY_ID = {kind.id: kind for kind in KINDS}
