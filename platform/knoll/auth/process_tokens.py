"""How the platform's processes know each other over HTTP: by a short-lived token that the platform's key signed.

The ports of the processes are on loopback with `knoll up`, where every user of the machine reaches them. `/healthz`,
`/readyz` and `/metrics` are for all of them; what tells of tenants is for the API alone, which checks rights.
"""

from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.values.errors import UnauthorizedError
from knoll.values.labels import SYSTEM_NAMESPACE

AUDIENCE = "knoll.dev/processes"
_NAME = "api"
_UID = "knoll.dev/processes"
"""Of no ServiceAccount: theirs are random. A tenant who asks for a token with AUDIENCE gets another subject's."""


def mint(key: SigningKey, now: float) -> str:
    """A token of the API for other processes. Args: now: epoch seconds."""
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
    """Refuse an `Authorization` header that does not name the API.

    Raises: UnauthorizedError.
    """
    scheme, _, token = header.partition(" ")
    claims = tokens.verify(key, token, now, AUDIENCE) if scheme == "Bearer" else None
    if claims is None or (claims.namespace, claims.name, claims.uid) != (SYSTEM_NAMESPACE, _NAME, _UID):
        raise UnauthorizedError("Unauthorized")
