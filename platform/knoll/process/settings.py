"""Every environment variable with its default and unit. They only connect processes to each other and to the machine.

The platform's behaviour is configured by Knative's ConfigMaps (`knoll.config`). `main()` of each process reads one of
these classes and passes it on; nothing else reads the environment.
"""

import os
import re
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from knoll.auth import key_files
from knoll.redis.encryption import PLAIN, Keyring
from knoll.values.errors import KnollError

PREFIX = "KNOLL_"
Port = Annotated[int, Meta(ge=0, le=65535)]
PublicPort = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]

BUILDKIT_IMAGE = "moby/buildkit:v0.26.3-rootless"
"""BuildKit image of `knoll up`; compose.yaml names the same."""


class SettingsError(KnollError):
    """An environment variable has an invalid value; the message names the variable."""


class CommonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of every process."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """URL of Redis (`redis://`, `rediss://` or `unix://`), or of the sentinels of a Redis with replicas
    (`redis+sentinel://HOST,HOST,HOST/0?master=NAME`, `rediss+sentinel://`). If it has a user and no password
    (`redis://USER@…`), the password is read from `keys_dir`."""
    keys_dir: Path | None = None
    """Folder with this process's password for Redis and the keys that encrypt Secrets there; without it, Secrets are
    stored unencrypted."""
    platform: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")] = "knoll"
    """Name of this platform, a label of all its containers, so that several platforms can share one engine."""
    node: Annotated[str, Meta(pattern=r"^([a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?)?$")] = ""
    """Name of this machine among those of the platform; empty on a single machine."""
    log_level: str = "info"
    """Log level: debug, info, warning or error."""
    log_format: Literal["json", "console"] = "json"
    """Format of log lines: json for machines, console for people."""

    @classmethod
    def or_exit(cls) -> Self:
        """Like `read`, but exit with the message of a SettingsError."""
        try:
            return cls.read()
        except SettingsError as error:
            sys.exit(str(error))

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment, with defaults for unset variables. Raises: SettingsError."""
        variables = {name: f"{PREFIX}{name.upper()}" for name in cls.__struct_fields__}
        given = {name: environment[key] for name, key in variables.items() if key in environment}
        try:
            return msgspec.convert(given, cls, strict=False, dec_hook=_decode).logged_in()
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            field = re.match(r"\.(\w+)", where)
            if field is None:
                raise SettingsError(problem) from error
            key = variables[field[1]]
            raise SettingsError(f"{key}={environment[key]}: {problem[0].lower()}{problem[1:]}") from error

    def logged_in(self) -> Self:
        """Return settings with the password in the Redis URL, if it needs one. Raises: SettingsError."""
        parts = urlsplit(self.redis_url)
        if not parts.username or parts.password is not None or self.keys_dir is None:
            return self
        file = self.keys_dir / key_files.PASSWORD
        try:
            password = file.read_text().strip()
        except OSError as error:
            raise SettingsError(f"{PREFIX}KEYS_DIR={self.keys_dir}: {file.name}: {error.strerror}") from error
        place = f"{parts.username}:{password}@{parts.netloc.rpartition('@')[2]}"
        return msgspec.structs.replace(self, redis_url=urlunsplit(parts._replace(netloc=place)))

    @property
    def keyring(self) -> Keyring:
        """The keys that encrypt Secrets in Redis; the file is read on use."""
        return PLAIN if self.keys_dir is None else Keyring(self.keys_dir / key_files.SECRETS)

    @property
    def gateway_keyring(self) -> Keyring:
        """The keys that encrypt certificates for the activator."""
        return PLAIN if self.keys_dir is None else Keyring(self.keys_dir / key_files.GATEWAY)


def _decode(kind: type, value: Any) -> Any:
    assert kind is Path, f"settings of type {kind} are not supported"
    return Path(value)


def _check_address(name: str, value: str | None) -> None:
    if value is not None:
        try:
            ip_address(value)
        except ValueError as error:
            raise ValueError(f"{PREFIX}{name.upper()}: {error}") from None


class ApiSettings(CommonSettings, frozen=True, kw_only=True):
    """The API process."""

    api_host: str = "127.0.0.1"
    """Address on which the API serves plain HTTP."""
    api_port: Port = 8001
    """Port on which the API serves plain HTTP; 0 picks a free port."""
    api_trusts_plain: bool | None = None
    """Whether unauthenticated HTTP requests get admin rights, if they come from processes of the API's user or of root.
    By default true if `api_host` is a loopback address. Set `true` for a container whose port is published on the
    loopback address only: all clients behind the network's gateway are administrators then."""
    api_socket: Path | None = None
    """Unix socket (mode 0600) on which the same user needs no token, regardless of `api_trusts_plain`."""
    api_tls_host: str = "127.0.0.1"
    """Address on which the API serves HTTPS, where every request needs a token."""
    api_tls_port: Port = 0
    """Port of the API over HTTPS, also as published to users; 0 disables it."""
    api_tls_names: str = ""
    """Comma-separated hosts and addresses in the API's certificate, besides `gateway_address`."""
    state_dir: Path = Path("/var/lib/knoll/state")
    """Folder of this API server with its certificate, a copy of the platform's authority, and the owner's
    kubeconfig."""
    uploads_dir: Path = Path("/var/lib/knoll/uploads")
    """Folder with uploaded sources, shared by the API and the builder."""
    max_upload_bytes: Count = 2 * 1024**3
    """Maximum size of an uploaded source, in bytes."""
    public_port: PublicPort = 8080
    """Public port of the activator, part of URLs unless it is 80."""
    public_https_port: Port = 443
    """Public HTTPS port of the activator, part of URLs unless it is 443; 0 disables HTTPS URLs."""
    gateway_address: str = "127.0.0.1"
    """Public address of the activator, reported as the load balancer address of the ingress gateway."""
    autoscaler_url: str = "http://127.0.0.1:8082"
    """URL of the autoscaler's admin port, which serves the logs of instances."""
    node_dir: Path | None = None
    """Folder with the certificate of this machine, one of several: `ca.pem`, `node.pem`, `node.key.pem`."""

    @property
    def trusts_plain(self) -> bool:
        """`api_trusts_plain` with its default."""
        if self.api_trusts_plain is not None:
            return self.api_trusts_plain
        try:
            return ip_address(self.api_host).is_loopback
        except ValueError:
            return self.api_host == "localhost"

    @property
    def tls_names(self) -> list[str]:
        """Hosts and addresses of the API's certificate, without duplicates."""
        own = ["localhost", "127.0.0.1", "::1", self.gateway_address, *self.api_tls_names.split(",")]
        return list(dict.fromkeys(name.strip() for name in own if name.strip()))

    @property
    def kubeconfig(self) -> Path:
        """The owner's kubeconfig."""
        return self.state_dir / "kubeconfig"


class ActivatorSettings(CommonSettings, frozen=True, kw_only=True):
    """The activator process."""

    activator_host: str = "127.0.0.1"
    """Comma-separated addresses on which the activator accepts requests."""
    activator_ports: str = "8080"
    """Comma-separated ports on which the activator accepts requests; 0 picks a free port."""
    activator_local_host: str = "127.0.0.1"
    """Address of the internal gateway for instances, to which all cluster-local names resolve."""
    activator_local_ports: str = ""
    """Comma-separated ports of the internal gateway, which also serves cluster-local hosts."""
    activator_tls_ports: str = ""
    """Comma-separated ports for HTTPS and HTTP/2 over TLS; certificates come from Secrets."""
    activator_admin_port: Port = 8081
    """Port of /healthz, /readyz and /metrics."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port."""
    names_dir: Path | None = None
    """Folder to which the activator writes cluster-local names for the DNS server; without it, none are written."""
    activator_workers: Count = 1
    """Number of worker processes that share the ports."""
    activator_overload_status: Literal[429, 503] = 503
    """Status of the response to a request when its revision's queue is full."""
    activator_http2: Literal["auto", "ngh2", "h2"] = "auto"
    """Library for HTTP/2: ngh2 (libnghttp2), h2 (pure Python, slower), or auto: ngh2 if it is installed."""
    relay_host: str = "127.0.0.1"
    """Address on which the activator takes requests of other machines for its instances."""
    relay_port: Port = 0
    """Port for requests of other machines, with mutual TLS; 0 is none."""
    node_dir: Path | None = None
    """Folder with the certificate of this machine (`ca.pem`, `node.pem`, `node.key.pem`), read again when it changes;
    without it, or without `node`, instances of other machines are not reached."""
    report_seconds: Seconds = 1.0
    """Interval of reports to the autoscaler, in seconds."""
    drain_seconds: Seconds = 30.0
    """Time that a stopping activator waits for its requests to finish, in seconds."""

    @property
    def takes_relayed(self) -> bool:
        """Whether there is a port for requests of other machines."""
        return bool(self.node and self.node_dir is not None and self.relay_port)


class AutoscalerSettings(CommonSettings, frozen=True, kw_only=True):
    """The autoscaler process."""

    docker_socket: Path = Path("/var/run/docker.sock")
    """The container engine's socket."""
    instance_network: str = "knoll-instances"
    """Docker network of instances and activators; created if missing."""
    instance_dns: str | None = None
    """Address of the DNS server of instances, which resolves cluster-local names; without it, the engine's is used."""
    autoscaler_admin_port: Port = 8082
    """Port of /healthz, /metrics and the logs of instances."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port."""
    tick_seconds: Seconds = 2.0
    """Interval of scaling decisions for each Revision, in seconds."""
    quiet_seconds: Annotated[float, Meta(ge=0)] = 30.0
    """Time that an instance without requests keeps open WebSockets before SIGTERM, in seconds; at most half of its
    termination grace period."""
    warm_sandboxes: Annotated[int, Meta(ge=0, le=256)] = 32
    """Maximum size of the warm pool (4 MB for each sandbox): one per Revision at zero, or the number that recently
    started at once; 0 disables it."""
    armed_instances: Annotated[int, Meta(ge=0, le=256)] = 32
    """Maximum number of armed instances (6 MB each): one per Revision at zero, those used last; their containers exist
    and only their programs have not been executed. Fewer while memory is short; 0 turns them off."""
    capacity_cpu: Seconds | None = None
    """Total CPU requests of all instances, in cores; by default all cores of the engine's machine."""
    capacity_memory_bytes: Count | None = None
    """Total memory requests of all instances, in bytes; by default the memory of the engine's machine."""
    paused_memory_fraction: Annotated[float, Meta(ge=0, le=1)] = 0.25
    """Fraction of `capacity_memory_bytes` for paused instances; beyond it, those paused longest are removed first."""
    firewall_socket: Path | None = None
    """Unix socket of the firewall; without it, traffic of instances and builds is not filtered."""
    node_address: str = ""
    """IP address at which the other machines reach this one; with `node`."""
    node_relay_port: Port = 0
    """Port of this machine's activator for requests of other machines, as published to them; with `node`."""
    node_admin_port: Port = 0
    """Port for other machines that leads to this process, for logs of instances; with `node`."""
    node_leads: bool = True
    """Whether this process may lead the platform; with `node`. Only machines that manage the engine's cluster may."""
    registry: str = ""
    """With `node`: `HOST:PORT` at which this machine's engine reaches the platform's registry."""
    places_ahead: Annotated[int, Meta(ge=0, le=256)] = 8
    """With `node`: number of free places in the engine's cluster for instances without resource requests (4 MB each),
    so that their start does not wait for a decision of the cluster; 0 makes none."""

    def __post_init__(self) -> None:
        _check_address("instance_dns", self.instance_dns)


class NamesSettings(CommonSettings, frozen=True, kw_only=True):
    """The DNS server (`python -m knoll.process.dns_server`)."""

    names_dir: Path | None = None
    """Folder to which the activator writes cluster-local names for the DNS server; without it, none are written."""
    names_host: str = "127.0.0.1"
    """Address on which the DNS server listens, port 53."""

    def __post_init__(self) -> None:
        _check_address("names_host", self.names_host)


class FirewallSettings(CommonSettings, frozen=True, kw_only=True):
    """The firewall process (`python -m knoll.firewall`)."""

    firewall_socket: Path | None = None
    """Unix socket of the firewall; without it, traffic of instances and builds is not filtered."""
    firewall_gateways: str = ""
    """Comma-separated gateways that instances can reach, each `address:port`."""
    firewall_own_networks: str = ""
    """Comma-separated parts of the instance network that the platform's own containers use, such as `10.201.0.0/17`."""
    firewall_relays: str = ""
    """Comma-separated addresses on the instance network from which activators connect to those of other machines."""
    instance_dns: str | None = None
    """Address of the DNS server of instances, which resolves cluster-local names; without it, the engine's is used."""
    build_bridge: Annotated[str, Meta(max_length=15)] = ""
    """Linux bridge of the build network; without it, traffic of builds is not filtered."""

    def __post_init__(self) -> None:
        _check_address("instance_dns", self.instance_dns)
        try:
            self.gateways, self.own_networks, self.relays  # noqa: B018
        except ValueError as error:
            names = f"{PREFIX}FIREWALL_GATEWAYS, {PREFIX}FIREWALL_OWN_NETWORKS or {PREFIX}FIREWALL_RELAYS"
            raise ValueError(f"{names}: {error}") from None

    @property
    def gateways(self) -> tuple[tuple[str, int], ...]:
        """Address and port of each gateway. Raises: ValueError."""
        pairs = [each.strip().rpartition(":") for each in self.firewall_gateways.split(",") if each.strip()]
        return tuple((str(IPv4Address(address)), int(port)) for address, _, port in pairs)

    @property
    def relays(self) -> tuple[str, ...]:
        """Addresses of the activators on the instance network. Raises: ValueError."""
        return tuple(str(IPv4Address(each.strip())) for each in self.firewall_relays.split(",") if each.strip())

    @property
    def own_networks(self) -> tuple[str, ...]:
        """Networks in CIDR form. Raises: ValueError."""
        return tuple(str(IPv4Network(each.strip())) for each in self.firewall_own_networks.split(",") if each.strip())


class EngineProxySettings(CommonSettings, frozen=True, kw_only=True):
    """The filter in front of the engine's socket (`python -m knoll.engine_proxy`)."""

    docker_socket: Path = Path("/var/run/docker.sock")
    """The container engine's socket."""
    engine_sockets_dir: Path = Path("/run/knoll-engine")
    """Folder of the engine proxy's sockets: `autoscaler/docker.sock` and `builder/docker.sock`."""
    instance_network: str = "knoll-instances"
    """Docker network of instances and activators; created if missing."""
    engine_capabilities: str = ""
    """Comma-separated capabilities that containers may have beyond Docker's defaults."""


class AgentSettings(CommonSettings, frozen=True, kw_only=True):
    """The agent of one of several machines (`python -m knoll.cluster.agent`)."""

    node_dir: Path | None = None
    """Folder with the certificate of this machine, one of several: `ca.pem`, `node.pem`, `node.key.pem`."""
    agent_api_url: str = "https://api:8444"
    """URL of this machine's API over HTTPS, which renews the certificate."""
    agent_host: str = "127.0.0.1"
    """Address on which the agent accepts connections of the other machines."""
    agent_port: Port = 7443
    """Port for the other machines, with mutual TLS; as published to them."""
    agent_services: str = ""
    """Comma-separated services of this machine for the others, each `NAME=HOST:PORT`; names are `redis`, `sentinel`,
    `logs`, `api`, `builder` and `registry`."""
    agent_forwards: str = ""
    """Comma-separated services of other machines for this one, each `HOST:PORT=NAME@NODE/ADDRESS:PORT`."""
    agent_first_manager: str = ""
    """Machine with Redis while no list of managers has been stored, as `NODE/ADDRESS`."""


class BuilderSettings(CommonSettings, frozen=True, kw_only=True):
    """The builder process."""

    docker_socket: Path = Path("/var/run/docker.sock")
    """The container engine's socket."""
    uploads_dir: Path = Path("/var/lib/knoll/uploads")
    """Folder with uploaded sources, shared by the API and the builder."""
    build_workers: Count = 1
    """Number of concurrent builds."""
    build_timeout_seconds: Count = 1800
    """Timeout of a build, in seconds."""
    node_dir: Path | None = None
    """Folder with the certificate of this machine, one of several: `ca.pem`, `node.pem`, `node.key.pem`."""
    registry: str = ""
    """With `node`: `HOST:PORT` at which this machine's engine reaches the platform's registry."""
    registry_url: str = ""
    """URL of the platform's registry, on the machine that has it; its builder removes images there."""
    registry_dir: Path | None = None
    """Folder in which the builder asks the platform's registry, on the machine that has it, to collect garbage."""
    buildkit_socket: Path = Path("/run/buildkit/buildkitd.sock")
    """Socket of the BuildKit daemon, which only builds of this platform may use."""
    buildkit_image: str = ""
    """Image from which the builder starts the BuildKit daemon; empty if something else starts it, as Compose does."""
    build_network: str = "knoll-builds"
    """Docker network of the BuildKit daemon and of build steps."""
    build_bridge: Annotated[str, Meta(max_length=15)] = ""
    """Linux bridge of the build network; without it, traffic of builds is not filtered."""
    build_frontends: str = ""
    """Comma-separated image repositories that `# syntax=` in a Dockerfile may name; others are refused."""
    build_cache_bytes: Bytes = 20 * 1024**3
    """Maximum size of BuildKit's cache, in bytes; the least recently used content is deleted first; 0 is no limit. Read
    when the daemon starts."""
    build_memory_bytes: Count = 4 * 1024**3
    """Memory limit of the BuildKit daemon with all build steps, in bytes."""
    build_cpu: Seconds | None = None
    """CPU limit of the BuildKit daemon with all build steps, in cores; without it, builds only have a lower priority
    than instances."""
    build_pids: Count = 4096
    """Maximum number of processes and threads of the BuildKit daemon with all build steps."""
    layers_dir: Path = Path("/var/lib/knoll/layers")
    """Folder for image layers in transfer between the engine and BuildKit."""
    prune_seconds: Seconds = 600.0
    """Interval of image and upload garbage collection, in seconds."""
    builder_admin_port: Port = 8083
    """Port of /healthz and /metrics."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port."""
