"""Volumes of a Revision and their mounts."""

from pydantic import Field

from knoll.resources.models.base import Bool, Int32, Int64, Model, QuantityText, Refused
from knoll.resources.models.env import ObjectFieldSelector, ResourceFieldSelector


class VolumeMount(Model):
    """The mount of a volume in a container."""

    name: str = ""
    """Name of the volume."""
    mount_path: str = ""
    """Absolute path in the container at which to mount it."""
    sub_path: str = ""
    """File or folder of the volume to mount instead of its root."""
    read_only: Bool = False
    """Whether it is read-only; must be true except for emptyDir and persistentVolumeClaim."""
    mount_propagation: Refused = None
    sub_path_expr: Refused = None
    recursive_read_only: Refused = None


class KeyToPath(Model):
    """The file for a key of a ConfigMap or Secret."""

    key: str = ""
    """Key of the ConfigMap or Secret."""
    path: str = ""
    """Path of the file in the volume."""
    mode: Int32 | None = None
    """Permission bits of the file, 0 to 0777."""


class SecretVolumeSource(Model):
    """The keys of a Secret as files."""

    secret_name: str = ""
    """Name of the Secret."""
    items: tuple[KeyToPath, ...] = ()
    """Keys to include and their file names; by default all keys."""
    default_mode: Int32 | None = None
    """Permission bits of the files, 0 to 0777. Default 0644."""
    optional: Bool | None = None
    """Whether the Secret or its keys may be missing."""


class ConfigMapVolumeSource(Model):
    """The keys of a ConfigMap as files."""

    name: str = ""
    """Name of the ConfigMap."""
    items: tuple[KeyToPath, ...] = ()
    """Keys to include and their file names; by default all keys."""
    default_mode: Int32 | None = None
    """Permission bits of the files, 0 to 0777. Default 0644."""
    optional: Bool | None = None
    """Whether the ConfigMap or its keys may be missing."""


class ObjectProjection(Model):
    """A ConfigMap or Secret as a source of a projected volume."""

    name: str = ""
    """Name of the ConfigMap or Secret."""
    items: tuple[KeyToPath, ...] = ()
    """Keys to include and their file names; by default all keys."""
    optional: Bool | None = None
    """Whether the object or its keys may be missing."""


class ServiceAccountTokenProjection(Model):
    """A token of the ServiceAccount as a file."""

    audience: str = ""
    """Intended recipient of the token."""
    expiration_seconds: Int64 | None = None
    """Lifetime of the token in seconds."""
    path: str = ""
    """Path of the file in the volume."""


class DownwardAPIVolumeFile(Model):
    """A file with information about the instance."""

    path: str = ""
    """Path of the file in the volume."""
    field_ref: ObjectFieldSelector | None = None
    """A field of the instance's metadata."""
    resource_field_ref: ResourceFieldSelector | None = None
    """A resource limit or request of a container."""
    mode: Int32 | None = None
    """Permission bits of the file, 0 to 0777."""


class DownwardAPIProjection(Model):
    """Files with information about the instance."""

    items: tuple[DownwardAPIVolumeFile, ...] = ()
    """Files to create."""


class VolumeProjection(Model):
    """A source of a projected volume; exactly one field must be set."""

    config_map: ObjectProjection | None = None
    """Files from a ConfigMap."""
    secret: ObjectProjection | None = None
    """Files from a Secret."""
    service_account_token: ServiceAccountTokenProjection | None = None
    """A token of the ServiceAccount."""
    downward_api: DownwardAPIProjection | None = Field(None, alias="downwardAPI")
    """Files with information about the instance."""
    cluster_trust_bundle: Refused = None
    pod_certificate: Refused = None


class ProjectedVolumeSource(Model):
    """Several sources in one volume; later ones take precedence."""

    sources: tuple[VolumeProjection, ...] = ()
    """The sources."""
    default_mode: Int32 | None = None
    """Permission bits of the files, 0 to 0777. Default 0644."""


class EmptyDirVolumeSource(Model):
    """A folder that is empty at the start and deleted with the instance."""

    medium: str = ""
    """Empty for disk, `Memory` for memory."""
    size_limit: QuantityText | None = None
    """Maximum size."""


class PersistentVolumeClaimVolumeSource(Model):
    """A volume that outlives the instance."""

    claim_name: str = ""
    """Name of the PersistentVolumeClaim."""
    read_only: Bool = False
    """Whether it is read-only."""


class Volume(Model):
    """A volume for the containers; exactly one source must be set."""

    name: str = ""
    """Name of the volume, to which mounts refer."""
    config_map: ConfigMapVolumeSource | None = None
    """The keys of a ConfigMap as files."""
    secret: SecretVolumeSource | None = None
    """The keys of a Secret as files."""
    projected: ProjectedVolumeSource | None = None
    """Several sources in one volume."""
    empty_dir: EmptyDirVolumeSource | None = None
    """A folder that is empty at the start and deleted with the instance."""
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    """A volume that outlives the instance."""
    host_path: Refused = None
    csi: Refused = None
    image: Refused = None
    downward_api: Refused = Field(None, alias="downwardAPI")
    ephemeral: Refused = None
    nfs: Refused = None
    iscsi: Refused = None
    cephfs: Refused = None
    rbd: Refused = None
    fc: Refused = None
    glusterfs: Refused = None
    flex_volume: Refused = None
    flocker: Refused = None
    cinder: Refused = None
    git_repo: Refused = None
    quobyte: Refused = None
    azure_file: Refused = None
    azure_disk: Refused = None
    aws_elastic_block_store: Refused = None
    gce_persistent_disk: Refused = None
    photon_persistent_disk: Refused = None
    portworx_volume: Refused = None
    scale_io: Refused = Field(None, alias="scaleIO")
    storageos: Refused = None
    vsphere_volume: Refused = None
