"""`config-deployment`: how instances are started."""

from dataclasses import dataclass

from knoll.config.reader import ConfigMapReader, Data

NAME = "config-deployment"
_LOCAL = ("kind.local", "ko.local", "dev.local")


@dataclass(frozen=True, slots=True)
class DeploymentConfig:
    """How instances are started."""

    registries_skipping_tag_resolving: frozenset[str] = frozenset(_LOCAL)
    digest_resolution_timeout_seconds: float = 10
    progress_deadline_seconds: int = 600
    """Seconds within which a Revision must become ready."""


def parse(data: Data) -> DeploymentConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    registries = read.text("registries-skipping-tag-resolving", ",".join(_LOCAL))
    config = DeploymentConfig(
        registries_skipping_tag_resolving=frozenset(filter(None, (name.strip() for name in registries.split(",")))),
        digest_resolution_timeout_seconds=read.seconds("digest-resolution-timeout", 10),
        progress_deadline_seconds=int(read.seconds("progress-deadline", 600, 1, whole=True)),
    )
    if config.digest_resolution_timeout_seconds <= 0:
        read.refuse("digest-resolution-timeout", "must be above 0s")
    read.finish()
    return config


EXPLAINED = """\
# Comma-separated registries whose tags are not resolved to digests.
registries-skipping-tag-resolving: "kind.local,ko.local,dev.local"
# Timeout for resolving a digest.
digest-resolution-timeout: "10s"
# Time within which a Revision must become ready; whole seconds.
progress-deadline: "600s"
"""
