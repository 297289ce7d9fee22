"""Tokens of ServiceAccounts for projected volumes, renewed before they expire.

Source: Kubernetes, pkg/kubelet/token/token_manager.go: a token is renewed after 80 % of its lifetime or a day.
"""

from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.spec.env_sources import Find, MissingSourceError, account_of, lookup
from autoscaler.spec.volume_files import Token
from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.resources.models.revision import Revision
from knoll.resources.models.volume import ServiceAccountTokenProjection
from knoll.values import kinds

RENEWED_AT = 0.8
"""Share of its lifetime."""
LONGEST_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Issued:
    token: bytes
    renew_at: float


class ServiceTokens:
    """Tokens that this process has issued; after a restart every volume gets new ones."""

    def __init__(self, clock: Callable[[], float], most: Callable[[], int] = lambda: tokens.MOST_SECONDS) -> None:
        """
        Args:
            clock: epoch seconds.
            most: returns the longest lifetime of a token, in seconds; longer requests are shortened to it.
        """
        self._clock = clock
        self._most = most
        self._key: SigningKey | None = None
        self._issued: dict[tuple[str, str, str, int], _Issued] = {}
        """By uids of Revision and account, audience and lifetime."""

    def sign_with(self, key: SigningKey) -> None:
        """Sign with this key from now on; tokens signed with another key are issued again."""
        if key != self._key:
            self._key = key
            self._issued.clear()

    def forget(self, revision: str) -> None:
        """Forget the tokens of a Revision, by its uid."""
        self._issued = {key: issued for key, issued in self._issued.items() if key[0] != revision}

    def of(self, revision: Revision, find: Find) -> Token:
        """Return a function that issues tokens of a Revision's account.

        The function raises:
            MissingSourceError: the account is missing, or the lifetime is not allowed.
        """

        def token(projection: ServiceAccountTokenProjection) -> bytes:
            name = account_of(revision.spec)
            account = lookup(find, kinds.SERVICE_ACCOUNT.id, name, optional=False)
            assert account is not None
            seconds = min(projection.expiration_seconds or tokens.DEFAULT_SECONDS, self._most())
            key = (revision.metadata.uid, account["metadata"]["uid"], projection.audience, seconds)
            now = self._clock()
            issued = self._issued.get(key)
            if issued is None or now >= issued.renew_at:
                minted = self._mint(revision.metadata.namespace, name, key[1], projection.audience, seconds, now)
                issued = self._issued[key] = _Issued(minted, now + min(seconds * RENEWED_AT, LONGEST_SECONDS))
            return issued.token

        return token

    def _mint(self, namespace: str, name: str, uid: str, audience: str, seconds: int, now: float) -> bytes:
        if self._key is None:
            raise MissingSourceError("the platform's token key is not available yet")
        audiences = [audience] if audience else []
        try:
            minted = tokens.mint(
                self._key, namespace=namespace, name=name, uid=uid, now=now, seconds=seconds, audiences=audiences
            )
        except ValueError as error:
            raise MissingSourceError(f"expirationSeconds of serviceAccountToken: {error}") from error
        return minted.encode()
