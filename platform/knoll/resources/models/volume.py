"""Volumes of a Revision, and where its containers mount them."""

from pydantic import Field

from knoll.resources.models.base import Bool, Int32, Int64, Model, QuantityText, Refused
from knoll.resources.models.env import ObjectFieldSelector, ResourceFieldSelector


class VolumeMount(Model):
    """Where a volume's files appear in a container."""

    name: str = ""
    """Name of the volume."""
    mount_path: str = ""
    """Absolute path in the container."""
    sub_path: str = ""
    """One file or folder of the volume to mount instead of its root."""
    read_only: Bool = False
    """Whether it cannot be written to; always so but for emptyDir and persistentVolumeClaim."""
    mount_propagation: Refused = None
    sub_path_expr: Refused = None
    recursive_read_only: Refused = None


class KeyToPath(Model):
    """One key of a ConfigMap or Secret as a file."""

    key: str = ""
    """The key."""
    path: str = ""
    """Path of the file in the volume."""
    mode: Int32 | None = None
    """Its permission bits, 0 to 0777."""


class SecretVolumeSource(Model):
    """A Secret's keys as files."""

    secret_name: str = ""
    """Name of the Secret."""
    items: tuple[KeyToPath, ...] = ()
    """The keys to show, and as which files; all when absent."""
    default_mode: Int32 | None = None
    """Permission bits of the files, 0 to 0777. Default 0644."""
    optional: Bool | None = None
    """Whether the Secret or its keys may be missing."""


class ConfigMapVolumeSource(Model):
    """A ConfigMap's keys as files."""

    name: str = ""
    """Name of the ConfigMap."""
    items: tuple[KeyToPath, ...] = ()
    """The keys to show, and as which files; all when absent."""
    default_mode: Int32 | None = None
    """Permission bits of the files, 0 to 0777. Default 0644."""
    optional: Bool | None = None
    """Whether the ConfigMap or its keys may be missing."""


class ObjectProjection(Model):
    """A ConfigMap or Secret as one source of a projected volume."""

    name: str = ""
    """Name of it."""
    items: tuple[KeyToPath, ...] = ()
    """The keys to show, and as which files; all when absent."""
    optional: Bool | None = None
    """Whether it or its keys may be missing."""


class ServiceAccountTokenProjection(Model):
    """A token of the service account as a file."""

    audience: str = ""
    """Who the token is for."""
    expiration_seconds: Int64 | None = None
    """Seconds that the token is good for."""
    path: str = ""
    """Path of the file in the volume."""


class DownwardAPIVolumeFile(Model):
    """A file that says something about the instance."""

    path: str = ""
    """Path of the file in the volume."""
    field_ref: ObjectFieldSelector | None = None
    """A field of its metadata."""
    resource_field_ref: ResourceFieldSelector | None = None
    """A limit or request."""
    mode: Int32 | None = None
    """Its permission bits, 0 to 0777."""


class DownwardAPIProjection(Model):
    """Files that say something about the instance."""

    items: tuple[DownwardAPIVolumeFile, ...] = ()
    """The files."""


class VolumeProjection(Model):
    """One source of a projected volume; one of these."""

    config_map: ObjectProjection | None = None
    """Files from a ConfigMap."""
    secret: ObjectProjection | None = None
    """Files from a Secret."""
    service_account_token: ServiceAccountTokenProjection | None = None
    """A token."""
    downward_api: DownwardAPIProjection | None = Field(None, alias="downwardAPI")
    """Files about the instance."""
    cluster_trust_bundle: Refused = None
    pod_certificate: Refused = None


class ProjectedVolumeSource(Model):
    """Several sources in one volume; later ones win."""

    sources: tuple[VolumeProjection, ...] = ()
    """The sources."""
    default_mode: Int32 | None = None
    """Permission bits of the files, 0 to 0777. Default 0644."""


class EmptyDirVolumeSource(Model):
    """A folder that is empty at the start and gone with the instance."""

    medium: str = ""
    """Empty for disk, `Memory` for memory."""
    size_limit: QuantityText | None = None
    """The most it may hold."""


class PersistentVolumeClaimVolumeSource(Model):
    """A volume that outlives the instance."""

    claim_name: str = ""
    """Name of the PersistentVolumeClaim."""
    read_only: Bool = False
    """Whether it cannot be written to."""


class Volume(Model):
    """Files for the containers; one of the sources."""

    name: str = ""
    """Name, which mounts refer to."""
    config_map: ConfigMapVolumeSource | None = None
    """A ConfigMap's keys as files."""
    secret: SecretVolumeSource | None = None
    """A Secret's keys as files."""
    projected: ProjectedVolumeSource | None = None
    """Several sources in one."""
    empty_dir: EmptyDirVolumeSource | None = None
    """A folder of the instance's own."""
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
