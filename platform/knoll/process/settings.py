"""Every environment variable with its default and unit. They only wire processes.

What the platform *does* is configured by Knative's own ConfigMaps (`knoll.config`). `main()` of each process reads one
of these and hands it down; nothing else reads the environment.
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
"""What `knoll up` runs builds with; compose.yaml has the same."""


class SettingsError(KnollError):
    """An environment variable has a value that cannot be; the message names it."""


class CommonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every process needs."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """Redis, as redis-py writes it (`redis://`, `rediss://`, `unix://`). With a user and without a password
    (`redis://USER@…`) the password is read from `keys_dir`."""
    keys_dir: Path | None = None
    """Folder with this process's password for Redis and the keys that encrypt Secrets there; without it, Secrets are
    kept as they are."""
    platform: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")] = "knoll"
    """Name of this platform on its engine: label of all containers, so that several can share one engine."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_format: Literal["json", "console"] = "json"
    """json for machines, console for people."""

    @classmethod
    def or_exit(cls) -> Self:
        """As `read`, for the beginning of a process: what is wrong is its last word."""
        try:
            return cls.read()
        except SettingsError as error:
            sys.exit(str(error))

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """What the environment says, and the defaults for the rest. Raises: SettingsError."""
        variables = {name: f"{PREFIX}{name.upper()}" for name in cls.__struct_fields__}
        given = {name: environment[key] for name, key in variables.items() if key in environment}
        try:
            return msgspec.convert(given, cls, strict=False, dec_hook=_decode).logged_in()
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$")
            found = re.match(r"\.(\w+)", where)
            if found is None:
                raise SettingsError(what) from error
            key = variables[found[1]]
            raise SettingsError(f"{key}={environment[key]}: {what[0].lower()}{what[1:]}") from error

    def logged_in(self) -> Self:
        """With the password in the URL, when the URL asks for it. Raises: SettingsError."""
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
        """The keys that Secrets are encrypted with in Redis; reads its file when it is used."""
        return PLAIN if self.keys_dir is None else Keyring(self.keys_dir / key_files.SECRETS)

    @property
    def gateway_keyring(self) -> Keyring:
        """The keys for what of Secrets the data path needs."""
        return PLAIN if self.keys_dir is None else Keyring(self.keys_dir / key_files.GATEWAY)


def _decode(kind: type, value: Any) -> Any:
    assert kind is Path, f"no setting may be a {kind}"
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
    """Address that the API listens on over plain http."""
    api_port: Port = 8001
    """Port of the API over plain http; 0 picks a free one."""
    api_trusts_plain: bool | None = None
    """Whether the plain port takes requests without a token: from processes of the user who runs the API, and of root,
    as administrator. By default it does when `api_host` is a loopback address. `true` is for a container whose port
    is published for its machine alone: there, all clients that come by the network's gateway are administrators."""
    api_socket: Path | None = None
    """Unix socket (mode 0600) on which the same user needs no token, whatever the plain port takes."""
    api_tls_host: str = "127.0.0.1"
    """Address that the API listens on over https, where everybody needs a token."""
    api_tls_port: Port = 0
    """Port of the API over https, inside and as users reach it; 0 is none."""
    api_tls_names: str = ""
    """Hosts and addresses by which the API is reached over https, besides `gateway_address`; separated by commas."""
    state_dir: Path = Path("/var/lib/knoll/state")
    """Where the API keeps its certificates and the owner's kubeconfig."""
    uploads_dir: Path = Path("/var/lib/knoll/uploads")
    """Where uploaded sources wait for the builder; the API and the builder share it."""
    max_upload_bytes: Count = 2 * 1024**3
    """Bound of one uploaded source, in bytes."""
    public_port: PublicPort = 8080
    """Port of the activator as users reach it: shown in URLs unless it is 80."""
    public_https_port: Port = 443
    """Port of the activator for https as users reach it: shown in URLs unless it is 443; 0 is none."""
    gateway_address: str = "127.0.0.1"
    """Address of the activator as users reach it: shown as the ingress gateway's load balancer address."""
    autoscaler_url: str = "http://127.0.0.1:8082"
    """The autoscaler's own HTTP port, which serves the logs of instances."""

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
        """Hosts and addresses of the API's certificate, each once."""
        own = ["localhost", "127.0.0.1", "::1", self.gateway_address, *self.api_tls_names.split(",")]
        return list(dict.fromkeys(name.strip() for name in own if name.strip()))

    @property
    def kubeconfig(self) -> Path:
        """The owner's kubeconfig."""
        return self.state_dir / "kubeconfig"


class ActivatorSettings(CommonSettings, frozen=True, kw_only=True):
    """The activator process."""

    activator_host: str = "127.0.0.1"
    """Address that requests arrive on; several separated by commas."""
    activator_ports: str = "8080"
    """Ports that requests arrive on, separated by commas; 0 picks a free one."""
    activator_local_host: str = "127.0.0.1"
    """Address of the internal gateway, as instances reach it: where all cluster-local names lead."""
    activator_local_ports: str = ""
    """Ports of the internal gateway, which answers cluster-local hosts as well; separated by commas."""
    activator_tls_ports: str = ""
    """Ports for https and HTTP/2 over TLS, separated by commas; certificates come from Secrets."""
    activator_admin_port: Port = 8081
    """Port of /healthz, /readyz and /metrics."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port."""
    names_dir: Path | None = None
    """Folder where the activator keeps the cluster-local names for the DNS server; without it, it keeps none."""
    activator_workers: Count = 1
    """Processes that share the port."""
    activator_overload_status: Literal[429, 503] = 503
    """What a request is answered with when its revision's queue is full."""
    report_seconds: Seconds = 1.0
    """Seconds between two reports to the autoscaler."""
    drain_seconds: Seconds = 30.0
    """Seconds that a stopping activator waits for its requests to end."""


class AutoscalerSettings(CommonSettings, frozen=True, kw_only=True):
    """The autoscaler process."""

    docker_socket: Path = Path("/var/run/docker.sock")
    """The container engine's socket."""
    instance_network: str = "knoll-instances"
    """Docker network that instances and activators share; made when missing."""
    instance_dns: str | None = None
    """Address of the DNS server that instances ask, which knows cluster-local names; without it, the engine's."""
    autoscaler_admin_port: Port = 8082
    """Port of /healthz, /metrics and the logs of instances."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port."""
    tick_seconds: Seconds = 2.0
    """Seconds between two decisions for one Revision."""
    quiet_seconds: Annotated[float, Meta(ge=0)] = 30.0
    """Seconds that an instance is left to its WebSockets before SIGTERM, without requests; half its grace at most."""
    warm_sandboxes: Annotated[int, Meta(ge=0, le=256)] = 32
    """Most sandboxes kept ready (4 MB each): one a Revision at zero, as many as started at once lately; 0 is none."""
    capacity_cpu: Seconds | None = None
    """Cores that instances may request together; without it, what the engine's machine has."""
    capacity_memory_bytes: Count | None = None
    """Memory that instances may request together, in bytes; without it, what the engine's machine has."""
    paused_memory_fraction: Annotated[float, Meta(ge=0, le=1)] = 0.25
    """Part of that memory that paused instances may keep; beyond it the longest paused go first."""
    firewall_socket: Path | None = None
    """Unix socket of the firewall; without it no packet of instances and builds is filtered."""

    def __post_init__(self) -> None:
        _check_address("instance_dns", self.instance_dns)


class NamesSettings(CommonSettings, frozen=True, kw_only=True):
    """The DNS server (`python -m knoll.process.dns_server`)."""

    names_dir: Path | None = None
    """Folder where the activator keeps the cluster-local names for the DNS server; without it, it keeps none."""
    names_host: str = "127.0.0.1"
    """Address that the DNS server answers on, port 53."""

    def __post_init__(self) -> None:
        _check_address("names_host", self.names_host)


class FirewallSettings(CommonSettings, frozen=True, kw_only=True):
    """The firewall process (`python -m knoll.firewall`)."""

    firewall_socket: Path | None = None
    """Unix socket of the firewall; without it no packet of instances and builds is filtered."""
    firewall_gateways: str = ""
    """Gateways that instances reach, each as `address:port`; separated by commas."""
    firewall_own_networks: str = ""
    """Part of the instance network that the platform's own containers have, such as `10.201.0.0/17`; separated by
    commas."""
    instance_dns: str | None = None
    """Address of the DNS server that instances ask, which knows cluster-local names; without it, the engine's."""
    build_bridge: Annotated[str, Meta(max_length=15)] = ""
    """Linux bridge of the network of builds; without it they are not filtered."""

    def __post_init__(self) -> None:
        _check_address("instance_dns", self.instance_dns)
        try:
            self.gateways, self.own_networks  # noqa: B018
        except ValueError as error:
            raise ValueError(f"{PREFIX}FIREWALL_GATEWAYS or {PREFIX}FIREWALL_OWN_NETWORKS: {error}") from None

    @property
    def gateways(self) -> tuple[tuple[str, int], ...]:
        """Address and port of each gateway. Raises: ValueError."""
        pairs = [each.strip().rpartition(":") for each in self.firewall_gateways.split(",") if each.strip()]
        return tuple((str(IPv4Address(address)), int(port)) for address, _, port in pairs)

    @property
    def own_networks(self) -> tuple[str, ...]:
        """Networks in CIDR form. Raises: ValueError."""
        return tuple(str(IPv4Network(each.strip())) for each in self.firewall_own_networks.split(",") if each.strip())


class EngineProxySettings(CommonSettings, frozen=True, kw_only=True):
    """The filter in front of the engine's socket (`python -m knoll.engine_proxy`)."""

    docker_socket: Path = Path("/var/run/docker.sock")
    """The container engine's socket."""
    engine_sockets_dir: Path = Path("/run/knoll-engine")
    """Folder where the engine proxy listens: `autoscaler/docker.sock` and `builder/docker.sock`."""
    instance_network: str = "knoll-instances"
    """Docker network that instances and activators share; made when missing."""
    engine_capabilities: str = ""
    """Capabilities that containers may be given beyond Docker's default ones; separated by commas."""


class BuilderSettings(CommonSettings, frozen=True, kw_only=True):
    """The builder process."""

    docker_socket: Path = Path("/var/run/docker.sock")
    """The container engine's socket."""
    uploads_dir: Path = Path("/var/lib/knoll/uploads")
    """Where uploaded sources wait for the builder; the API and the builder share it."""
    build_workers: Count = 1
    """Builds at once."""
    build_timeout_seconds: Count = 1800
    """Seconds after which a build is failed."""
    buildkit_socket: Path = Path("/run/buildkit/buildkitd.sock")
    """Socket of the BuildKit daemon that carries out builds, on which nothing but builds of this platform runs."""
    buildkit_image: str = ""
    """Image that the builder runs that daemon from by itself; empty where something else runs it, as Compose does."""
    build_network: str = "knoll-builds"
    """Docker network of the BuildKit daemon and of the steps of builds."""
    build_bridge: Annotated[str, Meta(max_length=15)] = ""
    """Linux bridge of the network of builds; without it they are not filtered."""
    build_frontends: str = ""
    """Repositories of images that `# syntax=` in a Dockerfile may name, separated by commas; others are not run."""
    build_cache_bytes: Bytes = 20 * 1024**3
    """Bound of BuildKit's cache, in bytes, least recently used first; 0 is none. Read when the daemon starts."""
    build_memory_bytes: Count = 4 * 1024**3
    """Memory of the BuildKit daemon and all steps of builds together, in bytes."""
    build_cpu: Seconds | None = None
    """Cores of the BuildKit daemon and all steps of builds together; without it, instances only go before them."""
    build_pids: Count = 4096
    """Processes and threads of the BuildKit daemon and all steps of builds together."""
    layers_dir: Path = Path("/var/lib/knoll/layers")
    """Where layers of images lie on their way between the engine and BuildKit."""
    prune_seconds: Seconds = 600.0
    """Seconds between two times that images and uploads that nobody needs are taken away."""
    builder_admin_port: Port = 8083
    """Port of /healthz and /metrics."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port."""
