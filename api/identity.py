"""Who asks. On plain http clients send no credentials, so that everybody there is one fixed user."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """The caller of a request."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""


LOCAL = User("admin", ("system:masters", "system:authenticated"))
"""Everybody who can reach the plain http port: it is bound to a loopback or private address."""
