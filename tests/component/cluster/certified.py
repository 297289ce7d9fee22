"""Machines with certificates, for tests of the connections between them."""

from datetime import UTC, datetime
from pathlib import Path

from knoll.auth import certificates
from knoll.auth.certificates import Issued
from knoll.cluster.node_folder import NodeFolder


def authority() -> Issued:
    return certificates.new_authority(datetime.now(UTC))


def machine(issuer: Issued, name: str, folder: Path) -> NodeFolder:
    """A machine that joined under this name."""
    made = NodeFolder(folder)
    signed = certificates.issue_node(issuer, name, made.request(name), datetime.now(UTC))
    made.keep(issuer.certificate_pem, signed, f"token of {name}")
    return made
