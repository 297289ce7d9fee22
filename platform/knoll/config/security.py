"""`config-security`: bounds on what users of the API may take. Not one of Knative's ConfigMaps."""

from dataclasses import dataclass, field

from knoll.config.reader import Data, Reader
from knoll.resources.destinations import Destinations

NAME = "config-security"
HOUR = 3600
YEAR = 365 * 24 * HOUR


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Bounds on what users of the API may take."""

    max_token_seconds: int = YEAR
    """Longest life of a token that the API gives out, in seconds."""
    build_destinations: Destinations = field(default_factory=Destinations)
    """What builds may reach of this machine and of the networks around it."""


def parse(data: Data) -> SecurityConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
    config = SecurityConfig(
        max_token_seconds=int(read.seconds("knoll.dev/max-token-expiration", YEAR, HOUR, 1 << 32, whole=True)),
        build_destinations=_destinations(read, "knoll.dev/build-destinations", ""),
    )
    read.finish()
    return config


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
# What builds may reach of this machine, of private and of link-local networks: addresses, ranges and host names,
# separated by commas. A host name counts for Git repositories and registries; for what the steps of a Dockerfile reach
# by themselves, name the address. The Internet is always reached.
knoll.dev/build-destinations: ""
"""
