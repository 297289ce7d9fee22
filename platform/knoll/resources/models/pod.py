"""Containers: the part of Kubernetes' PodSpec that a Revision has.

Fields marked `Refused` are known to Kubernetes and not taken by Knative (some can be turned on in config-features);
they are parsed so that validation can name them, here and in the modules of the parts.
"""

from pydantic import Field

from knoll.resources.models.base import Bool, Flagged, Int32, Model, QuantityText, Refused
from knoll.resources.models.env import EnvFromSource, EnvVar
from knoll.resources.models.probe import Probe
from knoll.resources.models.security_context import PodSecurityContext, SecurityContext
from knoll.resources.models.volume import Volume, VolumeMount

DEFAULT_PORT = 8080
"""Port of a container that names none."""


class LocalObjectReference(Model):
    """An object of the same namespace by name."""

    name: str = ""
    """Name."""


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


class ResourceRequirements(Model):
    """How much a container may and should get."""

    limits: dict[str, QuantityText] = Field(default_factory=dict)
    """The most it may use: `cpu` in cores (`500m` is half a core), `memory` in bytes (`350Mi`)."""
    requests: dict[str, QuantityText] = Field(default_factory=dict)
    """What it is sure to get."""
    claims: Refused = None


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
