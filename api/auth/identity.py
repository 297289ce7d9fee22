"""Who asks: whoever the bearer token of a request names. Without one, a fixed user where only this machine can ask."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from knoll.auth import tokens
from knoll.redis.encryption import PLAIN, Keyring
from knoll.store.protocol import Store
from knoll.values.errors import NotFoundError, UnauthorizedError
from knoll.values.kinds import SERVICE_ACCOUNT


@dataclass(frozen=True, slots=True)
class User:
    """The caller of a request."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    roles: frozenset[tuple[str, str]] = frozenset()
    """Namespace and name of each role that is bound to the user; an empty namespace means all of them."""
    expires: float = 0.0
    """Epoch seconds at which the token ends that names the user; 0 for never."""


AUTHENTICATED = "system:authenticated"
"""Group of everybody who is known."""
LOCAL = User("admin", ("system:masters", AUTHENTICATED))
"""Everybody who can reach the plain http port, when only this machine can."""
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
"""Everybody else who says nothing."""


def service_account(namespace: str, name: str, uid: str = "") -> User:
    """The user that a ServiceAccount is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(tokens.username(namespace, name), groups, uid)


_REMEMBERED = 1024
"""Tokens whose signature need not be looked at again."""


class Authenticator:
    """Believes tokens of ServiceAccounts that still are there."""

    def __init__(
        self,
        store: Store,
        redis: "Redis | None",
        now: Callable[[], float] = time.time,
        *,
        keyring: Keyring = PLAIN,
    ) -> None:
        """
        Args:
            redis: where the platform's key lies; without it, no token is believed.
            now: gives epoch seconds.
            keyring: what that key is sealed with.
        """
        self._store = store
        self._redis = redis
        self._keyring = keyring
        self._now = now
        self._key: tokens.SigningKey | None = None
        self._known: dict[str, tokens.Claims] = {}

    async def user(self, header: str) -> User:
        """The user of an `Authorization` header.

        Raises: UnauthorizedError, StoreUnavailableError.
        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError("Unauthorized")
        return await self.of_token(token.strip())

    async def of_token(self, token: str, audiences: Sequence[str] = ()) -> User:
        """The ServiceAccount that a token was made for.

        Args: audiences: any of them; without one, the API.

        Raises: as `user`.
        """
        if audiences:
            claims = tokens.verify(await self._key_of(token), token, self._now(), audiences)
        else:
            claims = await self._claims(token)
        try:
            account = await self._store.get(SERVICE_ACCOUNT.id, claims.namespace, claims.name)
        except NotFoundError:
            raise UnauthorizedError("Unauthorized") from None
        if account["metadata"].get("uid") != claims.uid or account["metadata"].get("deletionTimestamp"):
            raise UnauthorizedError("Unauthorized")
        return replace(service_account(claims.namespace, claims.name, claims.uid), expires=claims.expires)

    async def _claims(self, token: str) -> tokens.Claims:
        known = self._known.get(token)
        if known is not None:
            if self._now() >= known.expires:
                del self._known[token]
                raise UnauthorizedError("Unauthorized")
            return known
        claims = tokens.verify(await self._key_of(token), token, self._now())
        while len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[token] = claims
        return claims

    async def _key_of(self, token: str) -> tokens.SigningKey:
        if self._redis is None:
            raise UnauthorizedError("Unauthorized")
        wanted = tokens.key_id(token)
        # Another process made a new key when the store had lost the one that is held here.
        if self._key is None or self._key.id != wanted:
            self._key = await tokens.shared_key(self._redis, self._keyring)
            self._known.clear()
        return self._key
