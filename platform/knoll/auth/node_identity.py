"""Names of nodes in the subjects of their certificates. Pure.

Source: Kubernetes, "Using Node Authorization".
"""

from collections.abc import Mapping, Sequence
from typing import Any

ORGANIZATION = "system:nodes"
PREFIX = "system:node:"


def parse(organizations: Sequence[str], names: Sequence[str]) -> str:
    """Return the name of the node in a subject; empty if the subject is not a node.

    Args: organizations, names: all values of O and of CN.
    """
    if list(organizations) != [ORGANIZATION] or len(names) != 1 or not names[0].startswith(PREFIX):
        return ""
    return names[0].removeprefix(PREFIX)


def node_name(certificate: Mapping[str, Any] | None) -> str:
    """Return the name of the node in a certificate; empty if it is not a node's certificate.

    Args: certificate: verified, in the form of `ssl.SSLSocket.getpeercert`.
    """
    subject: dict[str, list[str]] = {}
    for relative in (certificate or {}).get("subject", ()):
        for key, value in relative:
            subject.setdefault(key, []).append(value)
    return parse(subject.get("organizationName", []), subject.get("commonName", []))
