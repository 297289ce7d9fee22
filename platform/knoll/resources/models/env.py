"""Environment variables of a container, and what their values come from."""

from knoll.resources.models.base import Bool, Flagged, Model, QuantityText, Refused


class EnvVarKeySelector(Model):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    """Name of the ConfigMap or Secret, in the same namespace."""
    key: str = ""
    """The key in it."""
    optional: Bool | None = None
    """Whether it may be missing: the variable is then not set."""


class ObjectFieldSelector(Model):
    """A field of the instance's own metadata."""

    api_version: str = ""
    """Version that the path is written for; `v1`."""
    field_path: str = ""
    """For example `metadata.name`."""


class ResourceFieldSelector(Model):
    """A limit or request of a container."""

    container_name: str = ""
    """Name of the container."""
    resource: str = ""
    """For example `limits.cpu`."""
    divisor: QuantityText | None = None
    """Unit that the value is given in."""


class EnvVarSource(Model):
    """Where an environment variable's value comes from; one of these."""

    config_map_key_ref: EnvVarKeySelector | None = None
    """A key of a ConfigMap."""
    secret_key_ref: EnvVarKeySelector | None = None
    """A key of a Secret."""
    field_ref: Flagged[ObjectFieldSelector | None] = None
    """A field of the instance's own metadata, where config-features allows it."""
    resource_field_ref: Flagged[ResourceFieldSelector | None] = None
    """A limit or request of a container, where config-features allows it."""
    file_key_ref: Refused = None


class EnvVar(Model):
    """An environment variable."""

    name: str = ""
    """Name of the variable."""
    value: str = ""
    """Its value. `$(NAME)` stands for the value of an earlier variable, `$$` for one `$`."""
    value_from: EnvVarSource | None = None
    """Where the value comes from instead."""


class ObjectReference(Model):
    """A ConfigMap or Secret by name."""

    name: str = ""
    """Name, in the same namespace."""
    optional: Bool | None = None
    """Whether it may be missing."""


class EnvFromSource(Model):
    """A ConfigMap or Secret, each key of which becomes an environment variable."""

    prefix: str = ""
    """Put before each key."""
    config_map_ref: ObjectReference | None = None
    """The ConfigMap."""
    secret_ref: ObjectReference | None = None
    """The Secret."""
