"""`config-security`: bounds on what users of the API may take. Not one of Knative's ConfigMaps."""

from dataclasses import dataclass

from knoll.config.reader import Data, Reader

NAME = "config-security"
HOUR = 3600
YEAR = 365 * 24 * HOUR


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Bounds on what users of the API may take."""

    max_token_seconds: int = YEAR
    """Longest life of a token that the API gives out, in seconds."""


def parse(data: Data) -> SecurityConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
    config = SecurityConfig(
        max_token_seconds=int(read.seconds("knoll.dev/max-token-expiration", YEAR, HOUR, 1 << 32, whole=True))
    )
    read.finish()
    return config


EXPLAINED = """\
# Longest life of a ServiceAccount's token; one that is asked for with a longer life gets this one, as with
# kube-apiserver's --service-account-max-token-expiration. At least 1h.
knoll.dev/max-token-expiration: "8760h"
"""
