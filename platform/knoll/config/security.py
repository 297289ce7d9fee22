"""`config-security`: bounds on what users of the API may take. Not one of Knative's ConfigMaps."""

from dataclasses import dataclass, field

from knoll.config.reader import Data, Reader
from knoll.resources.destinations import Destinations
from knoll.resources.quantity import parse_quantity

NAME = "config-security"
HOUR = 3600
YEAR = 365 * 24 * HOUR


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Bounds on what users of the API may take."""

    max_token_seconds: int = YEAR
    """Longest life of a token that the API gives out, in seconds."""
    ephemeral_storage_limit: int | None = 10 * 1024**3
    """Bytes that a container without a limit of its own may write to the disk; None is no limit."""
    disk_pressure_free: int = 2 * 1024**3
    """Bytes that are to be free on the disks of the engine and of Redis; 0 is off."""
    build_destinations: Destinations = field(default_factory=Destinations)
    """What builds may reach of this machine and of the networks around it."""
    max_connections_per_address: int = 1000
    """To the API; an IPv6 network of 64 bits counts as one address."""
    max_requests_per_user: int = 400
    """Requests to the API that are being answered at a time, streams apart."""
    max_streams_per_user: int = 500
    """Watches and logs that are followed, at a time."""


def parse(data: Data) -> SecurityConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
    config = SecurityConfig(
        max_token_seconds=int(read.seconds("knoll.dev/max-token-expiration", YEAR, HOUR, 1 << 32, whole=True)),
        ephemeral_storage_limit=_bytes(read, "knoll.dev/ephemeral-storage-limit", "10Gi") or None,
        disk_pressure_free=_bytes(read, "knoll.dev/disk-pressure-free", "2Gi"),
        build_destinations=_destinations(read, "knoll.dev/build-destinations", ""),
        max_connections_per_address=read.whole("knoll.dev/max-connections-per-address", 1000, 16),
        max_requests_per_user=read.whole("knoll.dev/max-requests-per-user", 400, 16),
        max_streams_per_user=read.whole("knoll.dev/max-streams-per-user", 500, 16),
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


def _destinations(read: Reader, key: str, default: str) -> Destinations:
    try:
        return Destinations.parse(read.text(key, default))
    except ValueError as problem:
        read.refuse(key, str(problem))
        return Destinations()


EXPLAINED = """\
# Longest life of a ServiceAccount's token; one that is asked for with a longer life gets this one, as with
# kube-apiserver's --service-account-max-token-expiration. At least 1h.
knoll.dev/max-token-expiration: "8760h"
# What a container without an ephemeral-storage limit of its own may write to the disk: beyond it, its instance is
# evicted. 0 is no limit. revision-ephemeral-storage-limit in config-defaults comes before it.
knoll.dev/ephemeral-storage-limit: "10Gi"
# While less is free on the disk of the engine or of Redis, builds and uploads are refused, images and caches that
# nothing needs are removed, and the instances that use most of the disk beyond their requests are evicted. 0 is off.
knoll.dev/disk-pressure-free: "2Gi"
# What builds may reach of this machine, of private and of link-local networks: addresses, ranges and host names,
# separated by commas. A host name counts for Git repositories and registries; for what the steps of a Dockerfile reach
# by themselves, name the address. The Internet is always reached.
knoll.dev/build-destinations: ""
# Connections to the API from one address (IPv6: from one network of 64 bits); at least 16. Those without a request
# make room for new ones first.
knoll.dev/max-connections-per-address: "1000"
# Requests to the API of one user that are answered at a time; more get 429 with Retry-After. At least 16. The
# administrator on the plain port has no such bound.
knoll.dev/max-requests-per-user: "400"
# Watches and followed logs of one user at a time, likewise.
knoll.dev/max-streams-per-user: "500"
"""
