"""Certificates of machines: for both sides of mutual TLS; a signing request cannot choose names or rights."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from knoll.auth import certificates
from knoll.auth.certificates import Issued

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> Issued:
    return certificates.new_authority(NOW)


def node(authority: Issued, name: str, folder: Path) -> Path:
    """A folder as a machine has it."""
    folder.mkdir()
    key = certificates.new_key()
    signed = certificates.issue_node(authority, name, certificates.node_request(name, key), NOW)
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    (folder / "node.pem").write_bytes(signed)
    (folder / "node.key.pem").write_bytes(certificates.key_pem(key))
    return folder


def context(folder: Path, *, server: bool) -> ssl.SSLContext:
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    made = ssl.create_default_context(purpose, cafile=str(folder / "ca.pem"))
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(folder / "node.pem", folder / "node.key.pem")
    return made


def shake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """A handshake in memory; returns the server's side."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    waiting = list(sides)
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting
    return sides[1]


def test_two_machines_authenticate_each_other_by_name(authority: Issued, tmp_path: Path) -> None:
    first, second = node(authority, "n1", tmp_path / "1"), node(authority, "rack.n2", tmp_path / "2")
    seen = shake(context(first, server=False), context(second, server=True), "rack.n2").getpeercert(binary_form=True)
    assert seen is not None
    assert certificates.node_name(x509.load_der_x509_certificate(seen)) == "n1"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(context(first, server=False), context(second, server=True), "n1")


def test_a_machine_of_another_platform_is_refused(authority: Issued, tmp_path: Path) -> None:
    ours = node(authority, "n1", tmp_path / "1")
    theirs = node(certificates.new_authority(NOW), "n1", tmp_path / "2")
    with pytest.raises(ssl.SSLError):
        shake(context(ours, server=False), context(theirs, server=True), "n1")
    lenient = context(theirs, server=False)
    lenient.check_hostname, lenient.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        shake(lenient, context(ours, server=True), "n1")


def test_the_certificate_of_an_api_server_is_not_a_client_certificate(authority: Issued, tmp_path: Path) -> None:
    ours = node(authority, "n1", tmp_path / "1")
    issued = certificates.issue(authority, ["n1"], NOW)
    (tmp_path / "api.pem").write_bytes(issued.certificate_pem)
    (tmp_path / "api.key").write_bytes(issued.key_pem)
    client = ssl.create_default_context(cafile=str(ours / "ca.pem"))
    client.load_cert_chain(tmp_path / "api.pem", tmp_path / "api.key")
    with pytest.raises(ssl.SSLError):
        shake(client, context(ours, server=True), "n1")
    assert certificates.node_name(issued.certificate) == ""


def test_a_request_chooses_neither_names_nor_rights(authority: Issued) -> None:
    key = certificates.new_key()
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "system:node:n1")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("n1"), x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    signed = x509.load_pem_x509_certificate(certificates.issue_node(authority, "n2", request, NOW))
    assert certificates.node_name(signed) == "n2"
    assert certificates.names_of(signed) == {"n2"}
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert signed.public_key() == key.public_key()


@pytest.mark.parametrize("request_pem", [b"", b"x", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_an_invalid_request_is_refused(authority: Issued, request_pem: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        certificates.issue_node(authority, "n1", request_pem, NOW)


def test_a_request_signed_by_another_key_is_refused(authority: Issued) -> None:
    request = x509.load_pem_x509_csr(certificates.node_request("n1", certificates.new_key()))
    der = bytearray(request.public_bytes(Encoding.DER))
    der[-1] ^= 1
    tampered = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(ValueError, match="no valid signature"):
        certificates.issue_node(authority, "n1", tampered, NOW)


def test_fingerprints_identify_the_key(authority: Issued) -> None:
    key = certificates.new_key()
    request = certificates.node_request("n1", key)
    signed = x509.load_pem_x509_certificate(certificates.issue_node(authority, "n1", request, NOW))
    assert certificates.fingerprint(signed) == certificates.request_fingerprint(request)
    assert certificates.fingerprint(signed) != certificates.fingerprint(authority.certificate)
