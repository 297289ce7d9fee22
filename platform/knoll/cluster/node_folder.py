"""The folder with a machine's certificate (`ca.pem`, `node.pem`, `node.key.pem`) and its `token` for the API."""

import os
import ssl
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from knoll import __version__
from knoll.auth import certificates
from knoll.cluster import managers
from knoll.cluster.managers import Manager
from knoll.values import versions
from knoll.values.errors import KnollError

AUTHORITY, CERTIFICATE, KEY, TOKEN = "ca.pem", "node.pem", "node.key.pem", "token"
MANAGERS = "managers.json"
"""The managers of the cluster, as last listed by the API: without them, a machine that starts finds no Redis."""


def protocol(service: str) -> str:
    """Return the ALPN protocol that this version offers for a service of another machine.

    Args: service: `redis`, `logs`, `api`, `builder` or `registry`.
    """
    return versions.protocol(f"knoll-{service}", __version__)


def accepted_protocols(service: str) -> list[str]:
    """Return the ALPN protocols that this version accepts for a service."""
    return versions.accepted_protocols(f"knoll-{service}", __version__)


class _OneProtocol(ssl.SSLContext):
    """A context whose ALPN protocol an HTTP client cannot replace."""

    def choose(self, name: str) -> None:
        super().set_alpn_protocols([name])

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        pass


class NodeFolderError(KnollError):
    """The folder of a machine's certificate cannot be used; the message names the file."""


class NodeFolder:
    """The files of one machine. Its private key never leaves the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def token(self) -> str:
        """The machine's token for the API. Raises: NodeFolderError."""
        return self._read(TOKEN).decode().strip()

    @property
    def name(self) -> str:
        """Name of the node in the certificate; empty without a certificate."""
        issued = certificates.read(self.path / CERTIFICATE, self.path / KEY)
        return certificates.node_name(issued.certificate) if issued else ""

    @property
    def authority(self) -> Path:
        return self.path / AUTHORITY

    def request(self, name: str) -> bytes:
        """Return a signing request for the machine's key, which is created if there is none.

        A renewal uses the same key: the API does not issue a certificate for another key under that name.

        Raises: NodeFolderError.
        """
        path = self.path / KEY
        if not path.exists():
            self._write(KEY, certificates.key_pem(certificates.new_key()))
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise NodeFolderError(f"{path}: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise NodeFolderError(f"{path}: it is not an elliptic curve key")
        return certificates.node_request(name, key)

    def keep(self, authority: bytes, certificate: bytes, token: str) -> None:
        """Store what the API issued for the request. Raises: NodeFolderError."""
        self._write(AUTHORITY, authority)
        self._write(TOKEN, f"{token}\n".encode())
        self._write(CERTIFICATE, certificate)

    def files(self) -> dict[str, bytes]:
        """Return the content of all files, by name. Raises: NodeFolderError."""
        listed = (MANAGERS,) if (self.path / MANAGERS).exists() else ()
        return {name: self._read(name) for name in (AUTHORITY, CERTIFICATE, KEY, TOKEN, *listed)}

    def managers(self) -> list[Manager]:
        """Return the managers as they were last listed; none if they never were. Raises: NodeFolderError."""
        try:
            return managers.decode((self.path / MANAGERS).read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise NodeFolderError(f"{self.path / MANAGERS}: {error}") from error

    def keep_managers(self, listed: Sequence[Manager]) -> None:
        """Store the managers. Raises: NodeFolderError."""
        if listed != self.managers():
            self._write(MANAGERS, managers.encode(listed))

    def is_valid(self, now: datetime) -> bool:
        """Return whether the certificate does not have to be renewed yet. Args: now: with a time zone."""
        issued = certificates.read(self.path / CERTIFICATE, self.path / KEY)
        return issued is not None and issued.is_valid(now, certificates.NODE_RENEWED_BEFORE)

    def stamp(self) -> tuple[int, int]:
        """Return a value that changes with the certificate file."""
        try:
            status = (self.path / CERTIFICATE).stat()
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return a context for mutual TLS between machines. Raises: NodeFolderError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        self._prepare(context)
        return context

    def client_context(self, service: str) -> ssl.SSLContext:
        """Return the context for an HTTP client of another machine's service. Raises: NodeFolderError."""
        context = _OneProtocol(ssl.PROTOCOL_TLS_CLIENT)
        self._prepare(context)
        context.choose(protocol(service))
        return context

    def _prepare(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        self.load(context)

    def load(self, context: ssl.SSLContext) -> None:
        """Use the current certificate and authority for new connections of a context. Raises: NodeFolderError.

        An earlier authority stays trusted: other machines may still have certificates from it.
        """
        try:
            context.load_verify_locations(self.authority)
        except OSError as error:
            raise NodeFolderError(f"{self.authority}: {error}") from error
        try:
            context.load_cert_chain(self.path / CERTIFICATE, self.path / KEY)
        except OSError as error:
            raise NodeFolderError(f"{self.path / CERTIFICATE}: {error}") from error

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise NodeFolderError(f"{self.path / name}: {error.strerror}") from error

    def _write(self, name: str, content: bytes) -> None:
        path = self.path / name
        fresh = path.with_name(f".{name}.new")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.unlink(missing_ok=True)
            # All processes that read it run as the same user.
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise NodeFolderError(f"{path}: {error.strerror}") from error
