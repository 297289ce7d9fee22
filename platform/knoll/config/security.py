"""`config-security`: limits of API users, and what their code can reach. Not one of Knative's ConfigMaps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from knoll.config.egress import EgressRule, parse_egress
from knoll.config.reader import ConfigMapReader, Data
from knoll.values.destinations import Destinations
from knoll.values.quantity import parse_quantity

NAME = "config-security"
EGRESS_ANNOTATION = "knoll.dev/egress"
"""Annotation of a Namespace: `allow` or `deny`, overrides the key `egress`."""
EGRESS_ALLOW_ANNOTATION = "knoll.dev/egress-allow"
"""Annotation of a Namespace: adds to the key `egress-allow`; replaces it if its egress is `deny`."""
VERDICTS = ("allow", "deny")
HOUR = 3600
YEAR = 365 * 24 * HOUR
AUTO = "auto"
V = TypeVar("V")
_REGISTRIES, _LOCAL = "registry-destinations", "local-images"


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Limits of API users, and what their code can reach."""

    max_token_seconds: int = YEAR
    """Maximum lifetime of a token that the API issues, in seconds."""
    ephemeral_storage_limit: int | None = 10 * 1024**3
    """Bytes that a container without its own limit may write to the disk; None is no limit."""
    disk_pressure_free: int = 2 * 1024**3
    """Minimum number of free bytes on the disks of the engine and of Redis; 0 is off."""
    build_destinations: Destinations = field(default_factory=Destinations)
    """Internal destinations that builds can reach: on this machine and in private networks."""
    registry_destinations: Destinations | None = None
    """The same for registries that the engine contacts; None is everything until there are tenants, then nothing."""
    local_images: tuple[str, ...] | None = None
    """Patterns of local images, not created by Builds, that every namespace may use; None is as above."""
    upload_quota: int = 20 * 1024**3
    """Maximum total bytes of a namespace's uploaded sources; 0 is no limit."""
    max_connections_per_address: int = 1000
    """To the API; a /64 IPv6 network counts as one address."""
    max_requests_per_user: int = 400
    """Concurrent API requests, without streams."""
    max_streams_per_user: int = 500
    """Concurrent watches and followed logs."""
    network_isolation: str = "auto"
    """`auto`: if the platform has a firewall; `required`: no instance starts without it; or `disabled`."""
    egress: str = "allow"
    """One of `VERDICTS`: whether instances can reach the Internet."""
    egress_allow: tuple[EgressRule, ...] = ()
    """Destinations that instances can always reach."""


def parse(data: Data) -> SecurityConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    config = SecurityConfig(
        max_token_seconds=int(read.seconds("max-token-expiration", YEAR, HOUR, 1 << 32, whole=True)),
        ephemeral_storage_limit=_bytes(read, "ephemeral-storage-limit", "10Gi") or None,
        disk_pressure_free=_bytes(read, "disk-pressure-free", "2Gi"),
        build_destinations=_destinations(read, "build-destinations", ""),
        registry_destinations=_unless_auto(read, _REGISTRIES, lambda: _destinations(read, _REGISTRIES, "")),
        local_images=_unless_auto(read, _LOCAL, lambda: _patterns(read.text(_LOCAL, ""))),
        upload_quota=_bytes(read, "upload-quota", "20Gi"),
        max_connections_per_address=read.whole("max-connections-per-address", 1000, 16),
        max_requests_per_user=read.whole("max-requests-per-user", 400, 16),
        max_streams_per_user=read.whole("max-streams-per-user", 500, 16),
        network_isolation=read.choice("network-isolation", "auto", ("auto", "required", "disabled")),
        egress=read.choice("egress", "allow", VERDICTS),
        egress_allow=_egress(read, "egress-allow"),
    )
    read.finish()
    return config


def _bytes(read: ConfigMapReader, key: str, default: str) -> int:
    try:
        size = parse_quantity(read.quantity(key, default))
    except ValueError as problem:  # too many digits
        read.refuse(key, str(problem))
        return 0
    if size < 0:
        read.refuse(key, "must not be negative")
    return int(size)


def _unless_auto(read: ConfigMapReader, key: str, value: Callable[[], V]) -> V | None:
    return None if read.text(key, AUTO).strip() == AUTO else value()


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _destinations(read: ConfigMapReader, key: str, default: str) -> Destinations:
    try:
        return Destinations.parse(read.text(key, default))
    except ValueError as problem:
        read.refuse(key, str(problem))
        return Destinations()


def _egress(read: ConfigMapReader, key: str) -> tuple[EgressRule, ...]:
    try:
        return parse_egress(read.text(key, ""))
    except ValueError as problem:
        read.refuse(key, str(problem))
        return ()


EXPLAINED = """\
# Maximum lifetime of ServiceAccount tokens; longer requested lifetimes are shortened, as with kube-apiserver's
# --service-account-max-token-expiration. At least 1h.
max-token-expiration: "8760h"
# Disk space of a container without an ephemeral-storage limit; its instance is evicted beyond it. 0 is no limit.
# revision-ephemeral-storage-limit in config-defaults takes precedence.
ephemeral-storage-limit: "10Gi"
# With less free disk space for the engine or Redis, builds and uploads are refused, unused images and caches removed,
# and the instances that most exceed their disk requests evicted. 0 disables it.
disk-pressure-free: "2Gi"
# Destinations of builds on this machine and in private and link-local networks: comma-separated addresses, ranges and
# host names. A name with a leading dot matches all subdomains, for Git repositories and registries only; build steps
# need an address, a range or a full name. The Internet is always allowed.
build-destinations: ""
# The same for registries from which images are resolved and pulled and to which they are pushed. "auto" allows all
# ("*") as long as the owner is the only user, and none once a RoleBinding exists.
registry-destinations: "auto"
# Local images not created by Builds, such as those of `docker build` and ko, that every namespace may use:
# comma-separated patterns with *. "auto" allows all ("*") as long as the owner is the only user, and none once a
# RoleBinding exists.
local-images: "auto"
# Maximum disk space of a namespace's uploaded sources; more is refused. Uploads are deleted a day after their last use.
# 0 is no limit.
upload-quota: "20Gi"
# Maximum connections to the API from one address (IPv6: from one /64 network); at least 16. Idle connections are
# closed first to accept new ones.
max-connections-per-address: "1000"
# Maximum concurrent API requests of one user; others get 429 with Retry-After. At least 16. The administrator on the
# plain port has no limit.
max-requests-per-user: "400"
# Maximum concurrent watches and followed logs of one user; others get 429 with Retry-After.
max-streams-per-user: "500"
# Isolation: instances reach each other only through the gateway, and on this machine only the gateway and the DNS
# server; private and link-local addresses are blocked for instances and builds. auto: if the platform has a firewall
# (with Compose, and with `knoll up` as root); required: no instance starts without it; disabled: no filtering.
network-isolation: "auto"
# Whether instances may reach the Internet: allow or deny. Annotation knoll.dev/egress of a Namespace takes precedence.
egress: "allow"
# Destinations that instances may always reach: networks, addresses and host names, with or without a port, such as
# 10.20.0.0/16, db.example.com:5432. Host names are resolved every 30 seconds. Annotation knoll.dev/egress-allow of a
# Namespace adds to the list; if its knoll.dev/egress is deny, it replaces the list.
egress-allow: ""
"""
