"""The API's TLS certificate and the private authority that issues it, stored in a folder.

The authority is created once and valid for ten years, so that kubeconfigs that trust it keep working. The API's
certificate is valid for one year, and issued again before it expires or when the names of the API change.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3652)
LIFE = timedelta(days=365)
RENEWED_BEFORE = timedelta(days=30)
"""A certificate is issued again this long before it expires."""
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def is_valid(self, now: datetime) -> bool:
        """Whether certificate and key belong together and do not expire soon."""
        ends = self.certificate.not_valid_after_utc
        return self.certificate.public_key() == self.key.public_key() and now + RENEWED_BEFORE < ends


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
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = Files(folder / "ca.crt", folder / "api.crt", folder / "api.key")
    authority = _read(files.authority, folder / "ca.key")
    if authority is None or not authority.is_valid(now):
        authority = new_authority(now)
        _write(authority, files.authority, folder / "ca.key")
    issued = _read(files.certificate, files.key)
    if issued is not None and issued.is_valid(now) and names_of(issued.certificate) == set(names):
        try:
            issued.certificate.verify_directly_issued_by(authority.certificate)
        except (ValueError, TypeError, InvalidSignature):
            pass  # issued by an earlier authority
        else:
            return files, False
    _write(issue(authority, names, now), files.certificate, files.key)
    return files, True


def new_authority(now: datetime) -> Issued:
    """Create an authority that may issue server certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Knoll")])
    built = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Issued(built.sign(key, hashes.SHA256()), key)


def issue(authority: Issued, names: Sequence[str], now: datetime) -> Issued:
    """Issue a server certificate for `names`. Raises: ValueError."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    built = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Knoll's API")]), issuer.subject, key, now, LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return Issued(built.sign(authority.key, hashes.SHA256()), key)


def names_of(certificate: x509.Certificate) -> set[str]:
    """Return the hosts and addresses of a certificate."""
    try:
        alternative_names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {
        *alternative_names.get_values_for_type(x509.DNSName),
        *map(str, alternative_names.get_values_for_type(x509.IPAddress)),
    }


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read(certificate: Path, key: Path) -> Issued | None:
    """Read a certificate and its key; None if they are not valid PEM files."""
    try:
        private = load_pem_private_key(key.read_bytes(), None)
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return Issued(parsed, private) if isinstance(private, ec.EllipticCurvePrivateKey) else None


def _write(issued: Issued, certificate: Path, key: Path) -> None:
    pem = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(key, pem)
    write_private(certificate, issued.certificate.public_bytes(Encoding.PEM))


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically, readable for its owner only. Raises: OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
