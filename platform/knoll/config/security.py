"""`config-security`: what users of the API may take, and what their code may reach. Not one of Knative's ConfigMaps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from knoll.config.egress import EgressRule, parse_egress
from knoll.config.reader import Data, Reader
from knoll.values.destinations import Destinations
from knoll.values.quantity import parse_quantity

NAME = "config-security"
EGRESS_ANNOTATION = "knoll.dev/egress"
"""Of a Namespace: `allow` or `deny`, instead of the key `egress`."""
EGRESS_ALLOW_ANNOTATION = "knoll.dev/egress-allow"
"""Of a Namespace: adds to the key `egress-allow`; the whole list where its egress is `deny`."""
VERDICTS = ("allow", "deny")
HOUR = 3600
YEAR = 365 * 24 * HOUR
AUTO = "auto"
Value = TypeVar("Value")
_REGISTRIES, _LOCAL = "registry-destinations", "local-images"


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """What users of the API may take, and what their code may reach."""

    max_token_seconds: int = YEAR
    """Longest life of a token that the API gives out, in seconds."""
    ephemeral_storage_limit: int | None = 10 * 1024**3
    """Bytes that a container without a limit of its own may write to the disk; None is no limit."""
    disk_pressure_free: int = 2 * 1024**3
    """Bytes that are to be free on the disks of the engine and of Redis; 0 is off."""
    build_destinations: Destinations = field(default_factory=Destinations)
    """What builds may reach of this machine and of the networks around it."""
    registry_destinations: Destinations | None = None
    """The same for registries that the engine asks; None is everything until there are tenants, then nothing."""
    local_images: tuple[str, ...] | None = None
    """Patterns of images of the engine that no Build made and every namespace may use; None is as above."""
    upload_quota: int = 20 * 1024**3
    """Bytes of uploaded sources that a namespace may have; 0 is no bound."""
    max_connections_per_address: int = 1000
    """To the API; an IPv6 network of 64 bits counts as one address."""
    max_requests_per_user: int = 400
    """Requests to the API that are being answered at a time, streams apart."""
    max_streams_per_user: int = 500
    """Watches and logs that are followed, at a time."""
    network_isolation: str = "auto"
    """`auto`: wherever the platform has a firewall; `required`: no instance starts without it; or `disabled`."""
    egress: str = "allow"
    """One of `VERDICTS`: whether instances reach the Internet."""
    egress_allow: tuple[EgressRule, ...] = ()
    """What instances reach in any case."""


def parse(data: Data) -> SecurityConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
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


def _bytes(read: Reader, key: str, default: str) -> int:
    try:
        size = parse_quantity(read.quantity(key, default))
    except ValueError as problem:  # too many digits
        read.refuse(key, str(problem))
        return 0
    if size < 0:
        read.refuse(key, "must not be negative")
    return int(size)


def _unless_auto(read: Reader, key: str, value: Callable[[], Value]) -> Value | None:
    return None if read.text(key, AUTO).strip() == AUTO else value()


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _destinations(read: Reader, key: str, default: str) -> Destinations:
    try:
        return Destinations.parse(read.text(key, default))
    except ValueError as problem:
        read.refuse(key, str(problem))
        return Destinations()


def _egress(read: Reader, key: str) -> tuple[EgressRule, ...]:
    try:
        return parse_egress(read.text(key, ""))
    except ValueError as problem:
        read.refuse(key, str(problem))
        return ()


EXPLAINED = """\
# Longest life of a ServiceAccount's token; one that is asked for with a longer life gets this one, as with
# kube-apiserver's --service-account-max-token-expiration. At least 1h.
max-token-expiration: "8760h"
# What a container without an ephemeral-storage limit of its own may write to the disk: beyond it, its instance is
# evicted. 0 is no limit. revision-ephemeral-storage-limit in config-defaults comes before it.
ephemeral-storage-limit: "10Gi"
# While less is free on the disk of the engine or of Redis, builds and uploads are refused, images and caches that
# nothing needs are removed, and the instances that use most of the disk beyond their requests are evicted. 0 is off.
disk-pressure-free: "2Gi"
# What builds may reach of this machine, of private and of link-local networks: addresses, ranges and host names,
# separated by commas. A name that begins with a dot stands for all names under it, for Git repositories and registries:
# what the steps of a Dockerfile reach by themselves is opened by address, range or full name. The Internet is always
# reached.
build-destinations: ""
# The same for registries that images are looked up at, pulled from and pushed to. "auto" allows everything ("*") as
# long as the owner is the only user, and nothing from the first RoleBinding on.
registry-destinations: "auto"
# Images that the engine has and no Build made, such as those of `docker build` and ko: names with * in them, separated
# by commas, which Services and Dockerfiles of every namespace may use. "auto" allows all ("*") as long as the owner is
# the only user, and none from the first RoleBinding on.
local-images: "auto"
# Uploaded sources that a namespace may have on the disk; more is refused. They go a day after they were used. 0 is no
# bound.
upload-quota: "20Gi"
# Connections to the API from one address (IPv6: from one network of 64 bits); at least 16. Those without a request
# make room for new ones first.
max-connections-per-address: "1000"
# Requests to the API of one user that are answered at a time; more get 429 with Retry-After. At least 16. The
# administrator on the plain port has no such bound.
max-requests-per-user: "400"
# Watches and followed logs of one user at a time, likewise.
max-streams-per-user: "500"
# Instances reach each other through the gateway alone, and of this machine the gateway and the DNS server alone.
# Private and link-local addresses are closed to instances and to builds. auto: so wherever the platform has its
# firewall, which is with Compose and with a `knoll up` that root runs; required: no instance starts without it;
# disabled: no packet is filtered.
network-isolation: "auto"
# Whether instances reach the Internet: allow or deny. The annotation knoll.dev/egress of a Namespace goes before it.
egress: "allow"
# What instances reach in any case: networks, addresses and host names, with or without a port, such as
# 10.20.0.0/16, db.example.com:5432. Host names are looked up every 30 seconds. The annotation knoll.dev/egress-allow of
# a Namespace adds to the list; where its knoll.dev/egress is deny it is the whole list.
egress-allow: ""
"""
