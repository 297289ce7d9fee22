"""Limits the concurrent requests and streams of each user, so that one client cannot block the others.

kube-apiserver has API Priority and Fairness for this, which exempts `system:masters`; its `--max-requests-inflight`
(400) is a fixed limit and not a share, as here.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.auth.authorization import MASTERS
from api.auth.identity import User
from knoll.config.security import SecurityConfig
from knoll.values.errors import TooManyRequestsError


class FairUse:
    """Counts the open requests and streams of each user in this process."""

    def __init__(self, config: Callable[[], SecurityConfig] = SecurityConfig) -> None:
        self._config = config
        self._open: Counter[tuple[str, bool]] = Counter()

    @contextmanager
    def admit(self, user: User, *, stream: bool) -> Iterator[None]:
        """Count a request while it is served.

        Args: stream: whether it is a watch or a followed log.

        Raises: TooManyRequestsError.
        """
        if MASTERS in user.groups:
            yield
            return
        key = (user.name, stream)
        most = self._config().max_streams_per_user if stream else self._config().max_requests_per_user
        if self._open[key] >= most:
            kind, name = ("watches and followed logs", "streams") if stream else ("requests", "requests")
            raise TooManyRequestsError(
                f'user "{user.name}" has {most} open {kind}, which is the limit '
                f"(max-{name}-per-user in the ConfigMap config-security): try again later"
            )
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


MAX_READING, MAX_WRITING = 200, 100
"""Requests that are served concurrently, without streams: about a second of work. kube-apiserver has 400 and 200."""


class MaxRequestsInFlight:
    """Limits the concurrent requests of all users, so that accepted ones get a response in time.

    Clients obey `Retry-After`. Source: kube-apiserver, `--max-requests-inflight`, `--max-mutating-requests-inflight`.
    """

    def __init__(self, reading: int = MAX_READING, writing: int = MAX_WRITING) -> None:
        self._limits = {False: reading, True: writing}
        self._open = {False: 0, True: 0}

    @contextmanager
    def admit(self, *, writing: bool) -> Iterator[None]:
        """Count a request that is not a stream while it is served. Raises: TooManyRequestsError."""
        if self._open[writing] >= self._limits[writing]:
            raise TooManyRequestsError("Too many requests, please try again later.")
        self._open[writing] += 1
        try:
            yield
        finally:
            self._open[writing] -= 1
