"""Encryption at rest in Redis: of Secrets and of the key that signs tokens.

AES-256-GCM with a random nonce. An envelope contains the id of its key, and is bound to its subject (the associated
data), so that it cannot be replaced with the envelope of another object. A keyring is a small file; its first key
encrypts, all of them decrypt. The file is checked for changes at each use, so that a rotation needs no restart.

Source of the scheme: Kubernetes, "Encrypting Confidential Data at Rest", provider `aesgcm`.
"""

import base64
import binascii
import functools
import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from knoll.values import kinds
from knoll.values.errors import KnollError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEALED_KINDS = frozenset({kinds.SECRET.id})
"""Resource ids of the kinds whose objects and events are sealed."""
TOKEN_KEY_SUBJECT = "token-key"  # noqa: S105 - what an envelope is bound to
_MAGIC = b"sealed:"
_ID_LENGTH = 16
_NONCE_BYTES = 12
_KEY_BYTES = 32


class SealedError(KnollError):
    """An envelope cannot be decrypted: its key is missing, or it was changed or moved."""


def object_subject(resource: str, key: str) -> str:
    """The associated data of a stored object. Args: key: `namespace/name`."""
    return f"object {resource} {key}"


def event_subject(resource: str, key: str) -> str:
    """The associated data of an event in the store's history. Args: key: `namespace/name`."""
    return f"event {resource} {key}"


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """One key of a keyring."""

    secret: bytes = field(repr=False)
    """32 random bytes."""

    @classmethod
    def fresh(cls) -> "EncryptionKey":
        return cls(secrets.token_bytes(_KEY_BYTES))

    @property
    def id(self) -> str:
        """Identifies the key without revealing it: 16 hexadecimal digits."""
        return hashlib.sha256(b"knoll key id\n" + self.secret).hexdigest()[:_ID_LENGTH]


def dump(keys: Sequence[EncryptionKey]) -> bytes:
    """The file format of a keyring: one line per key with its id and the key in base64."""
    return b"".join(f"{key.id} {base64.b64encode(key.secret).decode()}\n".encode() for key in keys)


def load(content: bytes) -> tuple[EncryptionKey, ...]:
    """Parse a keyring. Raises: ValueError: it is invalid; the message does not contain its content."""
    keys = []
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, encoded = line.strip().partition(" ")
        try:
            key = EncryptionKey(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            raise ValueError(f"line {number} is not of the form `ID BASE64`") from None
        if len(key.secret) != _KEY_BYTES or key.id != name:
            raise ValueError(f"line {number} is not a key of {_KEY_BYTES} bytes with a matching id")
        keys.append(key)
    if not keys:
        raise ValueError("it contains no key")
    return tuple(keys)


def seal(key: EncryptionKey, data: bytes, subject: str) -> bytes:
    """Encrypt. Args: subject: the associated data, which `unseal` needs too."""
    head, nonce = _head(key), os.urandom(_NONCE_BYTES)
    return head + nonce + _cipher(key).encrypt(nonce, data, head + subject.encode())


def is_sealed(data: bytes) -> bool:
    """Whether this is an envelope. JSON, PEM and zlib begin differently."""
    return data.startswith(_MAGIC)


def key_id(envelope: bytes) -> str:
    """Id of the key with which an envelope was encrypted."""
    return envelope[len(_MAGIC) : len(_MAGIC) + _ID_LENGTH].decode("ascii", "replace")


def unseal(keys: Sequence[EncryptionKey], envelope: bytes, subject: str) -> bytes:
    """Decrypt. Raises: SealedError."""
    from cryptography.exceptions import InvalidTag

    sealing_id = key_id(envelope)
    for key in keys:
        if key.id == sealing_id:
            head, body = envelope[: len(_head(key))], envelope[len(_head(key)) :]
            try:
                return _cipher(key).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], head + subject.encode())
            except (InvalidTag, ValueError) as error:
                raise SealedError(f"the {subject} in Redis was changed or moved: it cannot be decrypted") from error
    raise SealedError(
        f"the {subject} in Redis is encrypted with the key {sealing_id}, which is not in this process's keyring: "
        "restore the folder of keys that belongs to this Redis (KNOLL_KEYS_DIR), or delete the unreadable values "
        "with `knoll secrets discard-unreadable`"
    )


def _head(key: EncryptionKey) -> bytes:
    return b"%b%b:" % (_MAGIC, key.id.encode())


def _cipher(key: EncryptionKey) -> "AESGCM":
    return _aead(key.secret)


@functools.lru_cache(maxsize=16)
def _aead(secret: bytes) -> "AESGCM":
    # Imported with the first Secret: it takes 5 MB, which processes without Secrets do not need.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(secret)


class Keyring:
    """The current keys of a file. Without a file, nothing is encrypted and envelopes cannot be decrypted."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[EncryptionKey, ...] = ()

    @property
    def seals(self) -> bool:
        """Whether this keyring encrypts."""
        return self._path is not None

    @property
    def current(self) -> str:
        """Id of the key that encrypts; empty if there is none. Raises: SealedError."""
        keys = self._read()
        return keys[0].id if keys else ""

    @property
    def ids(self) -> frozenset[str]:
        """Ids of all keys. Raises: SealedError."""
        return frozenset(key.id for key in self._read())

    @property
    def keys(self) -> tuple[EncryptionKey, ...]:
        """All keys; the first one encrypts. Raises: SealedError."""
        return self._read()

    def seal(self, data: bytes, subject: str) -> bytes:
        """Encrypt with the newest key; without a keyring, return `data` unchanged. Raises: SealedError."""
        keys = self._read()
        return seal(keys[0], data, subject) if keys else data

    def open(self, data: bytes, subject: str) -> bytes:
        """Decrypt an envelope; plain data is returned unchanged. Raises: SealedError."""
        return unseal(self._read(), data, subject) if is_sealed(data) else data

    def _read(self) -> tuple[EncryptionKey, ...]:
        if self._path is None:
            return ()
        try:
            status = os.stat(self._path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._keys, self._stamp = load(self._path.read_bytes()), stamp
        except (OSError, ValueError) as error:
            raise SealedError(f"the keyring {self._path} cannot be read: {error}") from error
        return self._keys


PLAIN = Keyring()
"""A keyring that encrypts nothing."""
