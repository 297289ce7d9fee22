"""Authentication between the platform's processes over HTTP: short-lived tokens signed with the platform's key.

With `knoll up`, the ports of the processes are on loopback, where every user of the machine can reach them. `/healthz`,
`/readyz` and `/metrics` are open to all; data about tenants is served to the API only, which checks permissions.
"""

import hashlib
import hmac

from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.redis.encryption import EncryptionKey, Keyring
from knoll.values.errors import UnauthorizedError
from knoll.values.labels import SYSTEM_NAMESPACE

AUDIENCE = "knoll.dev/processes"
_NAME = "api"
_UID = "knoll.dev/processes"
"""Not the UID of any ServiceAccount (those are random): a tenant's token with AUDIENCE has another subject."""


SHARED_SECONDS = 300
"""Lifetime of a token of `mint_shared`."""


def mint(key: SigningKey, now: float) -> str:
    """Create a token with which the API authenticates to other processes. Args: now: epoch seconds."""
    return tokens.mint(
        key,
        namespace=SYSTEM_NAMESPACE,
        name=_NAME,
        uid=_UID,
        now=now,
        seconds=tokens.LEAST_SECONDS,
        audiences=[AUDIENCE],
    )


def check(key: SigningKey, header: str, now: float) -> None:
    """Refuse an `Authorization` header that does not authenticate the API.

    Raises: UnauthorizedError.
    """
    scheme, _, token = header.partition(" ")
    claims = tokens.verify(key, token, now, AUDIENCE) if scheme == "Bearer" else None
    if claims is None or (claims.namespace, claims.name, claims.uid) != (SYSTEM_NAMESPACE, _NAME, _UID):
        raise UnauthorizedError("Unauthorized")


def mint_shared(keyring: Keyring, subject: str, now: float) -> str:
    """Create a token for one subject with the keyring that builder and API share: the builder cannot sign other tokens.

    Args:
        subject: the resource that it gives access to.
        now: epoch seconds.

    Raises: UnauthorizedError: the keyring has no key. SealedError.
    """
    keys = keyring.keys
    if not keys:
        raise UnauthorizedError("processes on several machines need keys (KNOLL_KEYS_DIR)")
    expires = int(now) + SHARED_SECONDS
    return f"{expires}.{_signature(keys[0], subject, expires)}"


def check_shared(keyring: Keyring, header: str, subject: str, now: float) -> None:
    """Refuse an `Authorization` header without a valid token of `mint_shared`. Raises: UnauthorizedError."""
    scheme, _, token = header.partition(" ")
    expires, _, signature = token.partition(".")
    if scheme != "Bearer" or not expires.isascii() or not expires.isdigit() or len(expires) > 12:
        raise UnauthorizedError("Unauthorized")
    valid = now < int(expires) <= now + 2 * SHARED_SECONDS
    matching = [
        hmac.compare_digest(_signature(key, subject, int(expires)).encode(), signature.encode()) for key in keyring.keys
    ]
    if not valid or not any(matching):
        raise UnauthorizedError("Unauthorized")


def _signature(key: EncryptionKey, subject: str, expires: int) -> str:
    derived = hmac.digest(key.secret, b"knoll process token", hashlib.sha256)
    return hmac.new(derived, f"{subject}\n{expires}".encode(), hashlib.sha256).hexdigest()
