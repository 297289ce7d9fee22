"""Metadata and conditions, which all kinds share."""

from typing import Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from knoll.resources.models.base import Bool, Int64, Model


class OwnerReference(Model):
    """The object that this one belongs to, and is deleted with."""

    api_version: str = ""
    """Group and version of the owner."""
    kind: str = ""
    """Kind of the owner."""
    name: str = ""
    """Name of the owner, in the same namespace."""
    uid: str = ""
    """uid of the owner."""
    controller: Bool | None = None
    """Whether the owner is the one that manages this object; at most one is."""
    block_owner_deletion: Bool | None = None
    """Whether a foreground deletion of the owner waits for this object."""


class ObjectMeta(Model):
    """Name, identity and labels of an object."""

    name: str = ""
    """Name, unique among objects of the kind in the namespace. Cannot be changed."""
    generate_name: str = ""
    """Prefix of a name that the server completes; used when there is no name."""
    namespace: str = ""
    """Namespace the object is in. Cannot be changed."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Keys and values that objects are selected by."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Keys and values that are kept with the object; not selected by."""
    owner_references: tuple[OwnerReference, ...] = ()
    """Objects this one belongs to; it is deleted when all of them are gone."""
    finalizers: tuple[str, ...] = ()
    """Names of those that must clean up before the object is removed."""
    uid: str = ""
    """Identity of this very object; a later one of the same name has another. Set by the server."""
    resource_version: str = ""
    """Version of the stored object; changes with each write. Set by the server."""
    generation: Int64 = 0
    """Counts the states of the spec, from 1. Set by the server."""
    creation_timestamp: str = ""
    """When it was created, RFC 3339. Set by the server."""
    deletion_timestamp: str = ""
    """When its deletion was asked for, RFC 3339. Set by the server."""
    deletion_grace_period_seconds: Int64 | None = None
    """Seconds that the deletion may take. Set by the server."""
    self_link: SkipJsonSchema[str] = ""
    managed_fields: tuple[Any, ...] = ()
    """Which client set which fields; kept by server-side apply."""


class TemplateMeta(ObjectMeta):
    """Name, labels and annotations that the Revision gets."""


class Condition(Model):
    """One observation about an object's state."""

    type: str
    """What it is about, for example `Ready`."""
    status: Literal["True", "False", "Unknown"]
    """`True`, `False`, or `Unknown` while it is not decided."""
    severity: str = ""
    """Empty when a False one means trouble; `Info` when it is only said."""
    last_transition_time: str = ""
    """When anything else in this condition last changed, RFC 3339."""
    reason: str = ""
    """One word for programs: why it is not True."""
    message: str = ""
    """The same for people."""


class Status(Model):
    """What every status has."""

    observed_generation: Int64 = 0
    """The generation of the spec that the conditions speak of."""
    conditions: tuple[Condition, ...] = ()
    """Observations, sorted by type; `Ready` sums them up."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Further observations, for tools."""

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class Addressable(Model):
    """Where an object can be reached from inside."""

    url: str = ""
    """Address for other instances: `http://<name>.<namespace>.svc.cluster.local`."""
    name: SkipJsonSchema[str] = ""
    ca_certs: SkipJsonSchema[str] = ""
    audience: SkipJsonSchema[str] = ""


class TrafficTarget(Model):
    """A share of the requests, or a host of its own, for one Revision."""

    tag: str = ""
    """Name of a host of its own, `<tag>-<route>.<namespace>.<domain>`, that leads to this target alone."""
    revision_name: str = ""
    """The Revision. Absent: the latest ready one."""
    configuration_name: str = ""
    """The Configuration whose latest ready Revision is meant. Not in a Service, which has one only."""
    latest_revision: Bool | None = None
    """Whether the latest ready Revision is meant; must be the opposite of having a revisionName."""
    percent: Int64 | None = None
    """Share of the requests, 0 to 100. All shares sum to 100."""
    url: str = ""
    """Address of the tag's host; set by the server in a status."""
