"""Names of nodes in the subjects of their certificates, as on Kubernetes ("Using Node Authorization"). Pure."""

from collections.abc import Mapping
from typing import Any

ORGANIZATION = "system:nodes"
PREFIX = "system:node:"


def node_name(certificate: Mapping[str, Any] | None) -> str:
    """Return the node whose certificate it is; empty if it is that of something else.

    Args: certificate: a verified one, as `ssl.SSLSocket.getpeercert` returns it.
    """
    subject: dict[str, list[str]] = {}
    for relative in (certificate or {}).get("subject", ()):
        for key, value in relative:
            subject.setdefault(key, []).append(value)
    names = subject.get("commonName", [])
    if subject.get("organizationName") != [ORGANIZATION] or len(names) != 1 or not names[0].startswith(PREFIX):
        return ""
    return names[0].removeprefix(PREFIX)
