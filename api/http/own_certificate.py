"""The API server's certificate and the authority that issued it, as files in a folder.

Each API server has a certificate of its own. The authority is shared by the platform; `api.authority`
keeps the folder's copy and the stored one equal.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from knoll.auth import certificates
from knoll.auth.certificates import Issued


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files."""

    authority: Path
    """The authority's certificate, for clients."""
    certificate: Path
    key: Path


def load_or_issue(folder: Path, names: Sequence[str], now: datetime) -> tuple[Files, bool]:
    """Return the API's certificate for `names` (hosts and addresses), and whether it was newly issued.

    Args: now: with a time zone.

    Raises: OSError: the folder cannot be written. ValueError: a name that is neither host nor address.
    """
    files = Files(folder / "ca.crt", folder / "api.crt", folder / "api.key")
    authority = load_authority(folder)
    if authority is None or not authority.is_valid(now):
        authority = certificates.new_authority(now)
        keep_authority(folder, authority)
    issued = certificates.read(files.certificate, files.key)
    if (
        issued is not None
        and issued.is_valid(now)
        and certificates.names_of(issued.certificate) == set(names)
        and issued.is_issued_by(authority.certificate)
    ):
        return files, False
    _write(certificates.issue(authority, names, now), files.certificate, files.key)
    return files, True


def load_authority(folder: Path) -> Issued | None:
    """Read the folder's copy of the authority; None if it is missing or broken."""
    return certificates.read(folder / "ca.crt", folder / "ca.key")


def keep_authority(folder: Path, authority: Issued) -> None:
    """Write the folder's copy of the authority. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(authority, folder / "ca.crt", folder / "ca.key")


def _write(issued: Issued, certificate: Path, key: Path) -> None:
    write_private(key, issued.key_pem)
    write_private(certificate, issued.certificate_pem)


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically, readable for its owner only. Raises: OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
