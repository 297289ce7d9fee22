"""Metadata and conditions, which all kinds share."""

from typing import Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from knoll.resources.models.base import Bool, Int64, Model


class OwnerReference(Model):
    """An owner of the object. The object is deleted after its last owner."""

    api_version: str = ""
    """API group and version of the owner."""
    kind: str = ""
    """Kind of the owner."""
    name: str = ""
    """Name of the owner, in the same namespace."""
    uid: str = ""
    """uid of the owner."""
    controller: Bool | None = None
    """Whether the owner is the managing controller; at most one owner is."""
    block_owner_deletion: Bool | None = None
    """Whether a foreground deletion of the owner waits for this object."""


class ObjectMeta(Model):
    """Name, labels and other metadata of an object."""

    name: str = ""
    """Name, unique among objects of the kind in the namespace. Cannot be changed."""
    generate_name: str = ""
    """Prefix of a generated name; used if there is no name."""
    namespace: str = ""
    """Namespace of the object. Cannot be changed."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Keys and values by which objects can be selected."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Keys and values with further information; objects cannot be selected by them."""
    owner_references: tuple[OwnerReference, ...] = ()
    """Owners of the object, which is deleted after the last of them."""
    finalizers: tuple[str, ...] = ()
    """Clean-ups that must be finished before the object is removed; each controller removes its own entry."""
    uid: str = ""
    """Unique id of the object; a later object of the same name has another one. Set by the server."""
    resource_version: str = ""
    """Version of the stored object; changes with each write. Set by the server."""
    generation: Int64 = 0
    """Sequence number of the spec, from 1; incremented with each change. Set by the server."""
    creation_timestamp: str = ""
    """Time of the creation, RFC 3339. Set by the server."""
    deletion_timestamp: str = ""
    """Time at which the deletion was requested, RFC 3339. Set by the server."""
    deletion_grace_period_seconds: Int64 | None = None
    """Grace period of the deletion in seconds. Set by the server."""
    self_link: SkipJsonSchema[str] = ""
    managed_fields: tuple[Any, ...] = ()
    """The fields that each client manages; maintained by server-side apply."""


class TemplateMeta(ObjectMeta):
    """Name, labels and annotations of the Revision."""


class Condition(Model):
    """One observation about an object's state."""

    type: str
    """Type of the condition, for example `Ready`."""
    status: Literal["True", "False", "Unknown"]
    """`True`, `False` or `Unknown`."""
    severity: str = ""
    """Empty if False means a failure; `Info` if the condition is only informational."""
    last_transition_time: str = ""
    """Time of the last change of the condition, RFC 3339."""
    reason: str = ""
    """Machine-readable reason in CamelCase, if it is not True."""
    message: str = ""
    """Human-readable reason."""


class Status(Model):
    """Common fields of all statuses."""

    observed_generation: Int64 = 0
    """Generation of the spec to which the conditions refer."""
    conditions: tuple[Condition, ...] = ()
    """Conditions, sorted by type; `Ready` aggregates the others."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Further information, for tools."""

    def condition(self, type_: str) -> Condition | None:
        """The condition of this type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class Addressable(Model):
    """Cluster-local address of an object."""

    url: str = ""
    """Cluster-local URL: `http://<name>.<namespace>.svc.cluster.local`."""
    name: SkipJsonSchema[str] = ""
    ca_certs: SkipJsonSchema[str] = ""
    audience: SkipJsonSchema[str] = ""


class TrafficTarget(Model):
    """A share of the requests, or a separate host, for one Revision."""

    tag: str = ""
    """Name of a separate host, `<tag>-<route>.<namespace>.<domain>`, for this target only."""
    revision_name: str = ""
    """Name of the Revision. Absent for the latest ready one."""
    configuration_name: str = ""
    """The Configuration whose latest ready Revision is the target. Not allowed in a Service."""
    latest_revision: Bool | None = None
    """Whether the target is the latest ready Revision; must be false with a revisionName and true without."""
    percent: Int64 | None = None
    """Share of the requests in percent, 0 to 100. All shares sum to 100."""
    url: str = ""
    """URL of the tag; set by the server in the status."""
