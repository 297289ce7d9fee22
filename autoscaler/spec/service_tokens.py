"""Tokens of ServiceAccounts for projected volumes: one for each that is asked for, renewed in good time.

Source: Kubernetes, pkg/kubelet/token/token_manager.go: a token is renewed when 80 % of its life or a day is over.
"""

from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.spec.env_sources import Find, MissingSourceError, account_of, lookup
from autoscaler.spec.volume_files import Token
from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.resources.models import pod
from knoll.resources.models.revision import Revision
from knoll.values import kinds

RENEWED_AT = 0.8
"""Of its life."""
LONGEST_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Given:
    token: bytes
    renew_at: float


class ServiceTokens:
    """What was given out by this process; after a restart everybody gets new ones."""

    def __init__(self, clock: Callable[[], float], most: Callable[[], int] = lambda: tokens.MOST_SECONDS) -> None:
        """
        Args:
            clock: epoch seconds.
            most: longest life of a token, in seconds; one that is asked for with a longer life gets this one.
        """
        self._clock = clock
        self._most = most
        self._key: SigningKey | None = None
        self._given: dict[tuple[str, str, str, int], _Given] = {}
        """By uids of Revision and account, audience and life."""

    def sign_with(self, key: SigningKey) -> None:
        """From now on; what another key has signed is given out no more."""
        if key != self._key:
            self._key = key
            self._given.clear()

    def forget(self, revision: str) -> None:
        """A Revision, by its uid, needs none any more."""
        self._given = {key: given for key, given in self._given.items() if key[0] != revision}

    def of(self, revision: Revision, find: Find) -> Token:
        """Gives out tokens of a Revision's account.

        Raises (when a token is asked for):
            MissingSourceError: the account is missing, or no token may live so long or short.
        """

        def token(wanted: pod.ServiceAccountTokenProjection) -> bytes:
            name = account_of(revision.spec)
            account = lookup(find, kinds.SERVICE_ACCOUNT.id, name, optional=False)
            assert account is not None
            seconds = min(wanted.expiration_seconds or tokens.DEFAULT_SECONDS, self._most())
            key = (revision.metadata.uid, account["metadata"]["uid"], wanted.audience, seconds)
            now = self._clock()
            given = self._given.get(key)
            if given is None or now >= given.renew_at:
                made = self._mint(revision.metadata.namespace, name, key[1], wanted.audience, seconds, now)
                given = self._given[key] = _Given(made, now + min(seconds * RENEWED_AT, LONGEST_SECONDS))
            return given.token

        return token

    def _mint(self, namespace: str, name: str, uid: str, audience: str, seconds: int, now: float) -> bytes:
        if self._key is None:
            raise MissingSourceError("the platform's token key is not at hand yet")
        audiences = [audience] if audience else []
        try:
            made = tokens.mint(
                self._key, namespace=namespace, name=name, uid=uid, now=now, seconds=seconds, audiences=audiences
            )
        except ValueError as error:
            raise MissingSourceError(f"expirationSeconds of serviceAccountToken: {error}") from error
        return made.encode()
