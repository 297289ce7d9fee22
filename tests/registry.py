"""A real image registry (Debian's docker-registry) of a test's own: open, with a password, or over TLS."""

import contextlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import free_port, need
from tests.images import remove_images
from tests.waiting import eventually_sync

USER, PASSWORD = "tester", "not-a-secret"
_HASH = "$2y$05$ndI13/SElwwDxMKH/CuW6ezNLfUoLQtd9Gq99O2oQTrDmT0eSOu0C"
"""bcrypt of the password: the registry takes no other hash."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry."""

    host: str
    """`address:port`, as it stands before an image's name."""
    folder: Path

    def image(self, name: str) -> str:
        return f"{self.host}/{name}"

    def size(self) -> int:
        """Return the size of its blobs in bytes."""
        return sum(path.stat().st_size for path in (self.folder / "data").rglob("data"))

    def collect_garbage(self) -> None:
        """Remove blobs that no image needs."""
        command = ["docker-registry", "garbage-collect", "--delete-untagged", str(self.folder / "config.yml")]
        subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def registry(
    folder: Path, *, password: bool = False, tls_address: str = "", deletes: bool = False
) -> Iterator[Registry]:
    """Run a registry.

    Args:
        folder: for its files.
        password: it requires `USER` and `PASSWORD`.
        tls_address: it listens there, over TLS by an authority of its own that the engine is told of. The engine takes
            loopback addresses without asking for a certificate, so it must be another.
        deletes: images can be removed.
    """
    need("DOCKER", shutil.which("docker-registry") is not None)
    folder.mkdir(parents=True, exist_ok=True)
    host = f"{tls_address or '127.0.0.1'}:{free_port()}"
    http: dict[str, object] = {"addr": host}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": deletes}},
        "http": http,
    }
    if password:
        (folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    with contextlib.ExitStack() as stack:
        verify: ssl.SSLContext | bool = True
        if tls_address:
            authority = certificate(folder, tls_address)
            http["tls"] = {"certificate": str(folder / "tls.crt"), "key": str(folder / "tls.key")}
            stack.enter_context(_trusted(host, authority))
            verify = ssl.create_default_context(cafile=str(authority))
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        command = ["docker-registry", "serve", str(folder / "config.yml")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def answers() -> bool:
            assert process.poll() is None, "the registry ended"
            with contextlib.suppress(httpx.TransportError):
                scheme = "https" if tls_address else "http"
                return httpx.get(f"{scheme}://{host}/v2/", verify=verify).status_code in (200, 401)
            return False

        try:
            eventually_sync(answers, condition="the registry")
            yield Registry(host, folder)
        finally:
            process.terminate()
            process.wait(30)
            remove_images(f"{host}/*", f"{host}/*/*")


def certificate(folder: Path, address: str) -> Path:
    """Write `tls.crt` and `tls.key` for an address; returns the certificate of the authority made for them."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _named("tests' authority")
    ours = _signed(authority, authority, authority_key, authority_key, x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    its = _signed(authority, _named(address), authority_key, key, names)
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(ours.public_bytes(pem))
    (folder / "tls.crt").write_bytes(its.public_bytes(pem))
    (folder / "tls.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.crt"


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _signed(
    issuer: x509.Name,
    subject: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    return builder.add_extension(extension, critical=True).sign(issuer_key, hashes.SHA256())


@contextlib.contextmanager
def _trusted(host: str, authority: Path) -> Iterator[None]:
    """The engine reads this at each request to a registry."""
    folder = Path("/etc/docker/certs.d") / host
    folder.mkdir(parents=True)
    try:
        shutil.copy(authority, folder / "ca.crt")
        yield
    finally:
        shutil.rmtree(folder)
