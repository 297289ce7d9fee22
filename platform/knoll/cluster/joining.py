"""The new machine's side of a join: asks the API for a certificate, trusting only the public key that it was given."""

import base64
import hashlib
import http.client
import json
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from knoll import __version__
from knoll.auth.join_tokens import JoinToken
from knoll.cluster import managers
from knoll.cluster.managers import Manager
from knoll.cluster.node_folder import NodeFolder
from knoll.values.errors import BadRequestError, KnollError
from knoll.values.json import Json

SECONDS = 30


class JoinError(KnollError):
    """The platform refused the join, or is another one."""


def pin_of(certificate: bytes) -> str:
    """Return the hash of a certificate's public key, in the form of curl's `--pinnedpubkey`. Args: certificate: DER."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    raw = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256//{base64.b64encode(hashlib.sha256(raw).digest()).decode()}"


def pin_of_server(server: str) -> str:
    """Return the pin of a server's certificate. Raises: JoinError: it does not respond."""
    host, port = _place(server)
    try:
        with socket.create_connection((host, port), SECONDS) as raw, _unverified().wrap_socket(raw) as tls:
            return pin_of(tls.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError) as error:
        raise JoinError(f"{server}: {error}") from error


@dataclass(frozen=True, slots=True)
class Joined:
    """What a new member got."""

    bundle: bytes
    """Decrypted."""
    id: str
    """Identifies this membership: another one when the machine was removed and joins again."""
    managers: Sequence[Manager]


def join(server: str, pin: str, token: JoinToken, name: str, folder: NodeFolder, address: str = "") -> Joined:
    """Become a member of the platform under a name.

    The private key is created in the folder; the certificate, the machine's token and the list of managers are written
    beside it.

    Args: address: of this machine; required with the token for a manager.

    Raises: JoinError, NodeFolderError, SealedError.
    """
    request = {"request": folder.request(name).decode(), "version": f"v{__version__}", "address": address}
    body = json.dumps(request)
    issued = _post(server, pin, f"/cluster/nodes/{name}", body, token)
    try:
        folder.keep(str(issued["authority"]).encode(), str(issued["certificate"]).encode(), str(issued["token"]))
        listed = managers.convert(issued.get("managers", []))
        folder.keep_managers(listed)
        return Joined(token.open(base64.b64decode(issued["bundle"])), str(issued.get("id", "")), listed)
    except (LookupError, ValueError) as error:
        raise JoinError(f"{server} sent an unexpected response: {error}") from error


def own_address(server: str) -> str:
    """Return the address of this machine on the route to a server. Raises: JoinError."""
    host, port = _place(server)
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise JoinError(f"{server}: {error.strerror}") from error


def _post(server: str, pin: str, path: str, body: str, token: JoinToken) -> Json:
    host, port = _place(server)
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=_unverified())
    try:
        connection.connect()
        # Nothing is sent before the key is compared: with the token, another server could join the platform.
        shown = connection.sock.getpeercert(binary_form=True)
        if pin_of(shown or b"") != pin:
            raise JoinError(
                f"{server} has another public key than {pin}: this is not the platform, or its API's key "
                "was renewed; print the command again with `knoll node join-command`"
            )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise JoinError(f"{server}: {error}") from error
    finally:
        connection.close()
    if response.status == 401:
        raise JoinError(
            "the join token is invalid or has expired: print the command again with `knoll node join-command`"
        )
    if response.status != 201:
        raise JoinError(str(answer.get("message", response.reason)))
    return dict(answer)


def _place(server: str) -> tuple[str, int]:
    parts = urlsplit(server)
    if parts.scheme != "https" or not parts.hostname:
        raise BadRequestError(f"{server!r} is not of the form https://ADDRESS:PORT")
    return parts.hostname, parts.port or 443


def _unverified() -> ssl.SSLContext:
    """A context that accepts any certificate: the caller compares its public key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
