"""Authentication between the platform's processes over HTTP: short-lived tokens signed with the platform's key.

With `knoll up`, the ports of the processes are on loopback, where every user of the machine can reach them. `/healthz`,
`/readyz` and `/metrics` are open to all; data about tenants is served to the API only, which checks permissions.
"""

from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.values.errors import UnauthorizedError
from knoll.values.labels import SYSTEM_NAMESPACE

AUDIENCE = "knoll.dev/processes"
_NAME = "api"
_UID = "knoll.dev/processes"
"""Not the UID of any ServiceAccount (those are random): a tenant's token with AUDIENCE has another subject."""


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
