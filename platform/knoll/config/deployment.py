"""`config-deployment`: how instances are brought up."""

from dataclasses import dataclass

from knoll.config.reader import Data, Reader

NAME = "config-deployment"
_LOCAL = ("kind.local", "ko.local", "dev.local")


@dataclass(frozen=True, slots=True)
class DeploymentConfig:
    """How instances are brought up."""

    registries_skipping_tag_resolving: frozenset[str] = frozenset(_LOCAL)
    digest_resolution_timeout_seconds: float = 10
    progress_deadline_seconds: int = 600
    """Seconds that a Revision has to become ready."""


def parse(data: Data) -> DeploymentConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
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
# Registries whose tags are run as they are, without looking up their digests; separated by commas.
registries-skipping-tag-resolving: "kind.local,ko.local,dev.local"
# The time that looking up a digest may take.
digest-resolution-timeout: "10s"
# The time that a Revision has to become ready; whole seconds.
progress-deadline: "600s"
"""
