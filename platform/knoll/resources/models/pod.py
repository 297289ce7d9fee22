"""Containers: the subset of Kubernetes' PodSpec that a Revision supports.

Fields marked `Refused` exist in Kubernetes, but Knative does not allow them (some can be enabled in config-features);
they are parsed so that validation can name them, also in the modules of the parts.
"""

from pydantic import Field

from knoll.resources.models.base import Bool, Flagged, Int32, Model, QuantityText, Refused
from knoll.resources.models.env import EnvFromSource, EnvVar
from knoll.resources.models.probe import Probe
from knoll.resources.models.security_context import PodSecurityContext, SecurityContext
from knoll.resources.models.volume import Volume, VolumeMount

DEFAULT_PORT = 8080
"""Port of a container without ports."""


class LocalObjectReference(Model):
    """Reference to an object in the same namespace."""

    name: str = ""
    """Name."""


class ContainerPort(Model):
    """The port on which the container listens."""

    name: str = ""
    """Protocol of the port: `http1` (or empty) or `h2c`."""
    container_port: Int32 = 0
    """Port number, also set as the environment variable PORT. Default 8080."""
    protocol: str = ""
    """`TCP`."""
    host_port: Refused = None
    host_ip: Refused = Field(None, alias="hostIP")


class ResourceRequirements(Model):
    """Resource limits and requests of a container."""

    limits: dict[str, QuantityText] = Field(default_factory=dict)
    """Resource limits: `cpu` in cores (`500m` is half a core), `memory` in bytes (`350Mi`)."""
    requests: dict[str, QuantityText] = Field(default_factory=dict)
    """Guaranteed resources."""
    claims: Refused = None


class Container(Model):
    """A container of an instance."""

    name: str = ""
    """Name, unique in the Revision. Default `user-container`."""
    image: str = ""
    """Image to run, by tag or digest; a tag is resolved to a digest once, when the Revision is created."""
    command: tuple[str, ...] = ()
    """Replaces the image's entrypoint."""
    args: tuple[str, ...] = ()
    """Replaces the image's command."""
    working_dir: str = ""
    """Working directory; by default the image's."""
    ports: tuple[ContainerPort, ...] = ()
    """The port that receives requests; if there are several containers, exactly one must have a port."""
    env: tuple[EnvVar, ...] = ()
    """Environment variables."""
    env_from: tuple[EnvFromSource, ...] = ()
    """ConfigMaps and Secrets whose keys become environment variables."""
    resources: ResourceRequirements | None = None
    """Resource limits and requests."""
    volume_mounts: tuple[VolumeMount, ...] = ()
    """Volumes to mount."""
    readiness_probe: Probe | None = None
    """Probe that decides whether the container receives requests. Default: its port accepts a connection."""
    liveness_probe: Probe | None = None
    """Probe whose failure restarts the container."""
    startup_probe: Probe | None = None
    """Probe that decides whether the container has started; the other probes run after it."""
    image_pull_policy: str = ""
    """`Always`, `IfNotPresent` or `Never`."""
    security_context: SecurityContext | None = None
    """User, privileges and capabilities of the container."""
    termination_message_path: str = ""
    """File with the termination message. Default `/dev/termination-log`."""
    termination_message_policy: str = ""
    """`File`, or `FallbackToLogsOnError` to use the end of the log."""
    lifecycle: Refused = None
    stdin: Refused = None
    stdin_once: Refused = None
    tty: Refused = None
    volume_devices: Refused = None
    resize_policy: Refused = None
    restart_policy: Refused = None
    restart_policy_rules: Refused = None


class PodSpec(Model):
    """The containers and volumes of an instance."""

    containers: tuple[Container, ...] = ()
    """The containers, one of which receives the requests."""
    init_containers: tuple[Container, ...] = ()
    """Containers that run to completion first, one after the other."""
    volumes: tuple[Volume, ...] = ()
    """Volumes that the containers can mount."""
    service_account_name: str = ""
    """Name of the ServiceAccount."""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    """Secrets with credentials to pull images."""
    enable_service_links: Bool | None = None
    """Whether the addresses of other services are set as environment variables. Default false."""
    automount_service_account_token: Bool | None = None
    """Whether the token of the ServiceAccount is mounted; must be false or absent."""
    security_context: Flagged[PodSecurityContext | None] = None
    """Security settings of all containers, if enabled in config-features; those of a container take precedence."""
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
