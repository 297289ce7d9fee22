"""Containers and volumes: the part of Kubernetes' PodSpec that a Revision has.

Fields marked `Refused` are known to Kubernetes and not taken by Knative (some can be turned on in config-features);
they are parsed so that validation can name them.
"""

from pydantic import Field

from knoll.resources.models.base import Bool, Flagged, Int32, Int64, IntOrString, Model, QuantityText, Refused


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


class LocalObjectReference(Model):
    """An object of the same namespace by name."""

    name: str = ""
    """Name."""


class EnvFromSource(Model):
    """A ConfigMap or Secret, each key of which becomes an environment variable."""

    prefix: str = ""
    """Put before each key."""
    config_map_ref: ObjectReference | None = None
    """The ConfigMap."""
    secret_ref: ObjectReference | None = None
    """The Secret."""


class ContainerPort(Model):
    """The port that the program listens on."""

    name: str = ""
    """The protocol spoken there: `http1` (or empty) or `h2c`."""
    container_port: Int32 = 0
    """Number of the port, also given to the program as $PORT. Default 8080."""
    protocol: str = ""
    """`TCP`."""
    host_port: Refused = None
    host_ip: Refused = Field(None, alias="hostIP")


class ExecAction(Model):
    """A command that ends with 0 when all is well."""

    command: tuple[str, ...] = ()
    """The command and its arguments; no shell."""


class HTTPHeader(Model):
    """A header of a probe's request."""

    name: str = ""
    """Name of the header."""
    value: str = ""
    """Its value."""


class HTTPGetAction(Model):
    """A request that is answered with 200 to 399 when all is well."""

    path: str = ""
    """Path, possibly with a query. Default `/`."""
    port: IntOrString | None = None
    """Port; 0 is the container's port."""
    host: str = ""
    """Host to connect to; the instance itself when empty."""
    scheme: str = ""
    """`HTTP` or `HTTPS`."""
    http_headers: tuple[HTTPHeader, ...] = ()
    """Headers to send."""


class TCPSocketAction(Model):
    """A connection that is accepted when all is well."""

    port: IntOrString | None = None
    """Port; 0 is the container's port."""
    host: str = ""
    """Host to connect to; the instance itself when empty."""


class GRPCAction(Model):
    """A call of the standard gRPC health service that answers SERVING when all is well."""

    port: Int32 | None = None
    """Port; 0 is the container's port."""
    service: str | None = None
    """Name of the service that is asked for; empty is the whole server."""


class Probe(Model):
    """How a container is asked whether it is well."""

    exec: ExecAction | None = None
    """A command run in the container."""
    http_get: HTTPGetAction | None = None
    """An HTTP request."""
    tcp_socket: TCPSocketAction | None = None
    """A TCP connection."""
    grpc: GRPCAction | None = None
    """A gRPC health check."""
    initial_delay_seconds: Int32 = 0
    """Seconds to wait before the first try."""
    timeout_seconds: Int32 = 0
    """Seconds one try may take."""
    period_seconds: Int32 = 0
    """Seconds between tries. 0 for a readiness probe: as fast as possible until the first success."""
    success_threshold: Int32 = 0
    """Successes in a row that make it well again."""
    failure_threshold: Int32 = 0
    """Failures in a row that make it unwell."""
    termination_grace_period_seconds: Refused = None


class ResourceRequirements(Model):
    """How much a container may and should get."""

    limits: dict[str, QuantityText] = Field(default_factory=dict)
    """The most it may use: `cpu` in cores (`500m` is half a core), `memory` in bytes (`350Mi`)."""
    requests: dict[str, QuantityText] = Field(default_factory=dict)
    """What it is sure to get."""
    claims: Refused = None


class Capabilities(Model):
    """Linux capabilities."""

    add: tuple[str, ...] = ()
    """Capabilities to give; `NET_BIND_SERVICE` only, unless turned on in config-features."""
    drop: tuple[str, ...] = ()
    """Capabilities to take away; `ALL` is all."""


class SeccompProfile(Model):
    """Which system calls are allowed."""

    type: str = ""
    """`RuntimeDefault`, `Unconfined` or `Localhost`."""
    localhost_profile: str = ""
    """File of the profile when the type is `Localhost`."""


class SecurityContext(Model):
    """Who a container runs as and what it may do."""

    run_as_user: Int64 | None = None
    """User id; the image's user when absent."""
    run_as_group: Int64 | None = None
    """Group id; the image's group when absent."""
    run_as_non_root: Bool | None = None
    """Refuse to start as user 0."""
    read_only_root_filesystem: Bool | None = None
    """Make the image's files read-only."""
    allow_privilege_escalation: Bool | None = None
    """Whether a program may gain more rights than its parent."""
    capabilities: Capabilities | None = None
    """Linux capabilities to give and take."""
    seccomp_profile: SeccompProfile | None = None
    """System calls that are allowed."""
    privileged: Refused = None
    proc_mount: Refused = None
    se_linux_options: Refused = None
    windows_options: Refused = None
    app_armor_profile: Refused = None


class PodSecurityContext(Model):
    """Who all containers of an instance run as."""

    run_as_user: Int64 | None = None
    """User id."""
    run_as_group: Int64 | None = None
    """Group id."""
    run_as_non_root: Bool | None = None
    """Refuse to start as user 0."""
    fs_group: Int64 | None = None
    """Group that owns the files of volumes."""
    supplemental_groups: tuple[Int64, ...] = ()
    """Further groups."""
    seccomp_profile: SeccompProfile | None = None
    """System calls that are allowed."""
    fs_group_change_policy: Refused = None
    supplemental_groups_policy: Refused = None
    sysctls: Refused = None
    se_linux_options: Refused = None
    se_linux_change_policy: Refused = None
    windows_options: Refused = None
    app_armor_profile: Refused = None


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


class Container(Model):
    """A program of an instance."""

    name: str = ""
    """Name, unique in the Revision. Default `user-container`."""
    image: str = ""
    """Image to run, by tag or by digest; a tag is looked up once, when the Revision is made."""
    command: tuple[str, ...] = ()
    """Replaces the image's entrypoint."""
    args: tuple[str, ...] = ()
    """Replaces the image's command."""
    working_dir: str = ""
    """Folder it starts in; the image's when empty."""
    ports: tuple[ContainerPort, ...] = ()
    """The one port that requests go to; exactly one container has it when there are several."""
    env: tuple[EnvVar, ...] = ()
    """Environment variables."""
    env_from: tuple[EnvFromSource, ...] = ()
    """ConfigMaps and Secrets whose keys become environment variables."""
    resources: ResourceRequirements | None = None
    """How much it may and should get."""
    volume_mounts: tuple[VolumeMount, ...] = ()
    """Where volumes appear."""
    readiness_probe: Probe | None = None
    """Whether it can take requests. Default: its port accepts a connection."""
    liveness_probe: Probe | None = None
    """Whether it must be restarted."""
    startup_probe: Probe | None = None
    """Whether it has started; the other probes wait for it."""
    image_pull_policy: str = ""
    """`Always`, `IfNotPresent` or `Never`."""
    security_context: SecurityContext | None = None
    """Who it runs as and what it may do."""
    termination_message_path: str = ""
    """File whose text explains an exit. Default `/dev/termination-log`."""
    termination_message_policy: str = ""
    """`File`, or `FallbackToLogsOnError` to take the end of the log."""
    lifecycle: Refused = None
    stdin: Refused = None
    stdin_once: Refused = None
    tty: Refused = None
    volume_devices: Refused = None
    resize_policy: Refused = None
    restart_policy: Refused = None
    restart_policy_rules: Refused = None


class PodSpec(Model):
    """What an instance consists of."""

    containers: tuple[Container, ...] = ()
    """The programs; one of them takes the requests."""
    init_containers: tuple[Container, ...] = ()
    """Programs that run to their end before, one after the other."""
    volumes: tuple[Volume, ...] = ()
    """Files for the containers."""
    service_account_name: str = ""
    """Name of the ServiceAccount."""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    """Secrets to pull images with."""
    enable_service_links: Bool | None = None
    """Whether other services' addresses are put into the environment. Default false."""
    automount_service_account_token: Bool | None = None
    """Whether the account's token is mounted; false or absent."""
    security_context: Flagged[PodSecurityContext | None] = None
    """Who all containers run as, where config-features allows it; a container's own wins."""
    affinity: Refused = None
    host_aliases: Refused = None
    host_ipc: Refused = Field(None, alias="hostIPC")
    host_network: Refused = None
    host_pid: Refused = Field(None, alias="hostPID")
    node_selector: Refused = None
    tolerations: Refused = None
    topology_spread_constraints: Refused = None
    runtime_class_name: Refused = None
    scheduler_name: Refused = None
    priority_class_name: Refused = None
    dns_policy: Refused = None
    dns_config: Refused = None
    share_process_namespace: Refused = None
    restart_policy: Refused = None
    termination_grace_period_seconds: Refused = None
    active_deadline_seconds: Refused = None
    node_name: Refused = None
    hostname: Refused = None
    hostname_override: Refused = None
    subdomain: Refused = None
    priority: Refused = None
    preemption_policy: Refused = None
    readiness_gates: Refused = None
    ephemeral_containers: Refused = None
    overhead: Refused = None
    set_hostname_as_fqdn: Refused = Field(None, alias="setHostnameAsFQDN")
    host_users: Refused = None
    os: Refused = None
    resources: Refused = None
    resource_claims: Refused = None
    scheduling_gates: Refused = None
    service_account: Refused = None
