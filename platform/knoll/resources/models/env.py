"""Environment variables of a container, and the sources of their values."""

from knoll.resources.models.base import Bool, Flagged, Model, QuantityText, Refused


class EnvVarKeySelector(Model):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    """Name of the ConfigMap or Secret, in the same namespace."""
    key: str = ""
    """Key in the ConfigMap or Secret."""
    optional: Bool | None = None
    """Whether the object or key may be missing; the variable is not set in that case."""


class ObjectFieldSelector(Model):
    """A field of the instance's metadata."""

    api_version: str = ""
    """API version of the path; `v1`."""
    field_path: str = ""
    """For example `metadata.name`."""


class ResourceFieldSelector(Model):
    """A resource limit or request of a container."""

    container_name: str = ""
    """Name of the container."""
    resource: str = ""
    """For example `limits.cpu`."""
    divisor: QuantityText | None = None
    """Unit of the value."""


class EnvVarSource(Model):
    """Source of an environment variable's value; exactly one field must be set."""

    config_map_key_ref: EnvVarKeySelector | None = None
    """A key of a ConfigMap."""
    secret_key_ref: EnvVarKeySelector | None = None
    """A key of a Secret."""
    field_ref: Flagged[ObjectFieldSelector | None] = None
    """A field of the instance's metadata, if enabled in config-features."""
    resource_field_ref: Flagged[ResourceFieldSelector | None] = None
    """A resource limit or request of a container, if enabled in config-features."""
    file_key_ref: Refused = None


class EnvVar(Model):
    """An environment variable."""

    name: str = ""
    """Name of the variable."""
    value: str = ""
    """Value of the variable. `$(NAME)` is replaced by the value of an earlier variable, `$$` by `$`."""
    value_from: EnvVarSource | None = None
    """Source of the value, as an alternative to `value`."""


class ObjectReference(Model):
    """A ConfigMap or Secret by name."""

    name: str = ""
    """Name, in the same namespace."""
    optional: Bool | None = None
    """Whether it may be missing."""


class EnvFromSource(Model):
    """A ConfigMap or Secret whose keys become environment variables."""

    prefix: str = ""
    """Prefix of each variable's name."""
    config_map_ref: ObjectReference | None = None
    """The ConfigMap."""
    secret_ref: ObjectReference | None = None
    """The Secret."""
