"""The users of requests, as plain values. `authenticator` determines which of them sends a request. Pure."""

from dataclasses import dataclass

from knoll.auth import tokens


@dataclass(frozen=True, slots=True)
class User:
    """The caller of a request."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    roles: frozenset[tuple[str, str]] = frozenset()
    """Namespace and name of each role that is bound to the user; an empty namespace means all of them."""
    expires: float = 0.0
    """Epoch seconds at which the user's token expires; 0 for never."""


AUTHENTICATED = "system:authenticated"
"""Group of all authenticated users."""
LOCAL = User("admin", ("system:masters", AUTHENTICATED))
"""The user of unauthenticated requests to the plain HTTP port, while only this machine can reach it."""
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
"""The user of all other unauthenticated requests."""


def service_account(namespace: str, name: str, uid: str = "") -> User:
    """The user of a ServiceAccount."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(tokens.username(namespace, name), groups, uid)
