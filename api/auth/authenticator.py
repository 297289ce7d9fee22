"""Authentication: the ServiceAccount that a bearer token names, as long as the ServiceAccount exists."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from api.auth.identity import User, service_account
from knoll.auth import token_key, tokens
from knoll.redis.client import RedisClient
from knoll.redis.encryption import PLAIN, Keyring
from knoll.store.protocol import Store
from knoll.values.errors import NotFoundError, UnauthorizedError
from knoll.values.kinds import SERVICE_ACCOUNT

_REMEMBERED = 1024
"""Number of verified tokens that are cached, so that their signatures are not checked again."""


class Authenticator:
    """Accepts tokens of ServiceAccounts that still exist."""

    def __init__(
        self,
        store: Store,
        redis: RedisClient | None,
        now: Callable[[], float] = time.time,
        *,
        keyring: Keyring = PLAIN,
    ) -> None:
        """
        Args:
            redis: stores the platform's signing key; without it, no token is accepted.
            now: returns epoch seconds.
            keyring: encrypts that key.
        """
        self._store = store
        self._redis = redis
        self._keyring = keyring
        self._now = now
        self._key: tokens.SigningKey | None = None
        self._verified: dict[str, tokens.Claims] = {}

    async def user(self, header: str) -> User:
        """Return the user of an `Authorization` header.

        Raises: UnauthorizedError, StoreUnavailableError.
        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError("Unauthorized")
        return await self.of_token(token.strip())

    async def of_token(self, token: str, audiences: Sequence[str] = ()) -> User:
        """Return the ServiceAccount that a token was issued to.

        Args: audiences: the token must be for one of them; empty means the API.

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
        claims = self._verified.get(token)
        if claims is not None:
            if self._now() >= claims.expires:
                del self._verified[token]
                raise UnauthorizedError("Unauthorized")
            return claims
        claims = tokens.verify(await self._key_of(token), token, self._now())
        while len(self._verified) >= _REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = claims
        return claims

    async def _key_of(self, token: str) -> tokens.SigningKey:
        if self._redis is None:
            raise UnauthorizedError("Unauthorized")
        key_id = tokens.key_id(token)
        # Another process creates a new key after Redis lost the cached one.
        if self._key is None or self._key.id != key_id:
            self._key = await token_key.shared_key(self._redis, self._keyring)
            self._verified.clear()
        return self._key
