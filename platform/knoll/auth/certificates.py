"""Certificates of the platform: its private authority, and those that it issues to API servers and machines.

The authority is created once and valid for ten years, so that kubeconfigs that trust it keep working. The certificate
of an API server is valid for a year, that of a machine for a month; both are issued again before they expire.
"""

import hashlib
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
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from knoll.auth import node_identity

AUTHORITY_LIFE = timedelta(days=3652)
LIFE = timedelta(days=365)
RENEWED_BEFORE = timedelta(days=30)
"""How long before its expiry the certificate of an API server is renewed."""
NODE_LIFE = timedelta(days=30)
NODE_RENEWED_BEFORE = timedelta(days=20)
"""How long before its expiry the certificate of a machine is renewed."""
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def is_valid(self, now: datetime, renewed_before: timedelta = RENEWED_BEFORE) -> bool:
        """Return whether certificate and key belong together, and the certificate does not expire soon."""
        ends = self.certificate.not_valid_after_utc
        return self.certificate.public_key() == self.key.public_key() and now + renewed_before < ends

    def is_issued_by(self, authority: x509.Certificate) -> bool:
        """Whether the authority signed the certificate."""
        try:
            self.certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


def parse(certificate: bytes, key: bytes) -> Issued | None:
    """Parse a certificate and its key; None if they are not valid PEM."""
    try:
        private = load_pem_private_key(key, None)
        parsed = x509.load_pem_x509_certificate(certificate)
    except (ValueError, TypeError):
        return None
    return Issued(parsed, private) if isinstance(private, ec.EllipticCurvePrivateKey) else None


def read(certificate: Path, key: Path) -> Issued | None:
    """Read a certificate and its key; None if a file does not exist or is not valid PEM.

    Raises: OSError: a file cannot be read.
    """
    try:
        return parse(certificate.read_bytes(), key.read_bytes())
    except FileNotFoundError:
        return None


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def fingerprint(certificate: x509.Certificate) -> str:
    """Identify the key of a certificate: `sha256:` and the hash of its SubjectPublicKeyInfo, in hexadecimal digits.

    Source: Kubernetes, `kubeadm join --discovery-token-ca-cert-hash`.
    """
    return f"sha256:{hashlib.sha256(_public(certificate.public_key())).hexdigest()}"


def request_fingerprint(request: bytes) -> str:
    """Identify the key of a certificate signing request in the same way. Raises: ValueError."""
    return f"sha256:{hashlib.sha256(_public(x509.load_pem_x509_csr(request).public_key())).hexdigest()}"


def _public(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the key is not an elliptic curve key")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def new_authority(now: datetime) -> Issued:
    """Create an authority that may issue certificates of servers and machines, but not of other authorities."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Knoll")])
    built = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Issued(built.sign(key, hashes.SHA256()), key)


def issue(authority: Issued, names: Sequence[str], now: datetime) -> Issued:
    """Issue a server certificate for `names`, hosts and addresses. Raises: ValueError."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Knoll's API")])
    alternative_names = [_general_name(name) for name in names]
    built = _leaf(
        authority, subject, alternative_names, [ExtendedKeyUsageOID.SERVER_AUTH], key.public_key(), (now, LIFE)
    )
    return Issued(built, key)


def node_request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the signing request of a machine for its own key, as PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_node_subject(name))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def issue_node(authority: Issued, name: str, request: bytes, now: datetime) -> bytes:
    """Sign the certificate of a machine, for both sides of mutual TLS; returns PEM.

    Only the key is taken from the request; names in it are ignored.

    Args:
        name: name of the node: the subject, and the only name in the certificate.
        request: PEM of a certificate signing request.

    Raises: ValueError: the request is invalid.
    """
    parsed = x509.load_pem_x509_csr(request)
    key = parsed.public_key()
    if not parsed.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the signing request has no valid signature by an elliptic curve key")
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [x509.DNSName(name)]
    signed = _leaf(authority, _node_subject(name), names, usages, key, (now, NODE_LIFE))
    return signed.public_bytes(Encoding.PEM)


def node_name(certificate: x509.Certificate) -> str:
    """Return the name of the node in a certificate; empty if it is not a machine's certificate."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return node_identity.parse([str(each.value) for each in organizations], [str(each.value) for each in names])


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


def _node_subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, node_identity.ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{node_identity.PREFIX}{name}"),
        ]
    )


def _leaf(
    authority: Issued,
    subject: x509.Name,
    names: Sequence[x509.GeneralName],
    usages: Sequence[x509.ObjectIdentifier],
    key: ec.EllipticCurvePublicKey,
    validity: tuple[datetime, timedelta],
) -> x509.Certificate:
    return (
        _builder(subject, authority.certificate.subject, key, *validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
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
