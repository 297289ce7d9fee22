"""The kinds of objects: their names on the wire and in discovery.

A *resource id* such as `services.serving.knative.dev` names a kind everywhere inside Knoll: in store calls, keys and
caches. Kinds of the core group have a bare plural (`configmaps`).
"""

from dataclasses import dataclass

SERVING = "serving.knative.dev"
BUILD = "build.knoll.dev"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    group: str
    """API group; empty for the core group."""
    version: str
    """The version it is stored and answered in."""
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    also_versions: tuple[str, ...] = ()
    """Older versions that are accepted and stored as `version`."""

    @property
    def id(self) -> str:
        """The resource id."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


_KNATIVE = ("all", "knative", "serving")
_OLDER = ("v1beta1", "v1alpha1")

SERVICE = Kind(SERVING, "v1", "Service", "services", "service", ("kservice", "ksvc"), _KNATIVE, also_versions=_OLDER)
CONFIGURATION = Kind(
    SERVING, "v1", "Configuration", "configurations", "configuration", ("config", "cfg"), _KNATIVE, also_versions=_OLDER
)
REVISION = Kind(SERVING, "v1", "Revision", "revisions", "revision", ("rev",), _KNATIVE, also_versions=_OLDER)
ROUTE = Kind(SERVING, "v1", "Route", "routes", "route", ("rt",), _KNATIVE, also_versions=_OLDER)
BUILD_KIND = Kind(BUILD, "v1alpha1", "Build", "builds", "build", (), ("all", "knoll"))
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", "namespace", ("ns",), namespaced=False)
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", "configmap", ("cm",))
SECRET = Kind("", "v1", "Secret", "secrets", "secret")
EVENT = Kind("", "v1", "Event", "events", "event", ("ev",))
CORE_SERVICE = Kind("", "v1", "Service", "services", "service", ("svc",))

KINDS: tuple[Kind, ...] = (
    SERVICE, CONFIGURATION, REVISION, ROUTE, BUILD_KIND, NAMESPACE, CONFIG_MAP, SECRET, EVENT, CORE_SERVICE,
)  # fmt: skip
BY_ID = {kind.id: kind for kind in KINDS}
