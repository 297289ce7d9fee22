"""Join tokens: with a token, a new machine gets a certificate and the keys that it needs.

A token is `ID.SECRET`. The API stores a hash of the secret, and the bundle for the machine, encrypted with a key that
is derived from the secret: the store and its files reveal neither.

Source of the format: Kubernetes, bootstrap tokens (`kubeadm token`).
"""

import base64
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from knoll.redis import encryption
from knoll.redis.encryption import EncryptionKey, SealedError
from knoll.values.errors import UnauthorizedError

NAMESPACE = "kube-system"
SECRET_TYPE = "knoll.dev/join-token"  # noqa: S105 - the type of the object
HASH, BUNDLE, EXPIRATION, IMAGE, SCRIPT, ROLE = "hash", "bundle", "expiration", "image", "script", "role"
"""Keys of a token's Secret: hash of the secret; encrypted bundle for the machine; epoch seconds of the expiry; id of
the upload with the platform's images; script for the new machine, with `PLACEHOLDER` for the token; role of the
machine: `manager`, or empty."""
PLACEHOLDER = b"@TOKEN@"
LIFE_SECONDS = 3600
_ALPHABET = string.ascii_lowercase + string.digits
_FORM = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{32})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token. Its secret is not stored, so it can be printed only when it is created."""

    id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.id}.{self.secret}"

    @classmethod
    def fresh(cls) -> "JoinToken":
        return cls(_random(6), _random(32))

    @classmethod
    def parse(cls, text: str) -> "JoinToken":
        """Raises: ValueError: it has another form; the message does not repeat it."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError("a join token has the form ID.SECRET, of 6 and 32 lower-case letters and digits")
        return cls(match[1], match[2])

    @property
    def object_name(self) -> str:
        """Name of its Secret in `NAMESPACE`."""
        return f"knoll-join-{self.id}"

    def seal(self, bundle: bytes) -> bytes:
        """Encrypt the bundle for a machine."""
        return encryption.seal(self._key, bundle, self._subject)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt the bundle for a machine. Raises: SealedError."""
        if not encryption.is_sealed(sealed):
            raise SealedError("the platform sent no encrypted keys")
        return encryption.unseal((self._key,), sealed, self._subject)

    def data(self, bundle: bytes, expires: float, image: str, script: str = "", *, role: str = "") -> dict[str, str]:
        """Return the data of its Secret, base64-encoded. Args: expires: epoch seconds. image: id of an upload."""
        values = {
            HASH: self._hash.encode(),
            BUNDLE: self.seal(bundle),
            EXPIRATION: str(int(expires)).encode(),
            IMAGE: image.encode(),
            SCRIPT: script.encode(),
            ROLE: role.encode(),
        }
        return {key: base64.b64encode(value).decode() for key, value in values.items()}

    @property
    def _key(self) -> EncryptionKey:
        return EncryptionKey(hashlib.sha256(b"knoll join bundle\n" + self.secret.encode()).digest())

    @property
    def _subject(self) -> str:
        return f"join {self.id}"

    @property
    def _hash(self) -> str:
        return hashlib.sha256(b"knoll join token\n" + self.secret.encode()).hexdigest()

    def check(self, stored: Mapping[str, bytes], now: float) -> None:
        """Compare with the stored Secret. Args: stored: its data. now: epoch seconds. Raises: UnauthorizedError."""
        expires = stored.get(EXPIRATION, b"")
        same = hmac.compare_digest(stored.get(HASH, b""), self._hash.encode())
        if not same or not expires.isdigit() or now >= int(expires):
            raise UnauthorizedError("Unauthorized")


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
