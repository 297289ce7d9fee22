"""The machines of a cluster: each has a ServiceAccount as long as it is a member. Pure."""

from collections.abc import Iterable

from knoll.values.json import Json

ACCOUNT = "node-"
"""Prefix of the name of a machine's ServiceAccount."""
KEY_ANNOTATION = "knoll.dev/node-key"
"""Annotation of that ServiceAccount with the the fingerprint of the only key for which its certificates are issued."""


def account_of(node: str) -> str:
    """Return the name of a machine's ServiceAccount."""
    return f"{ACCOUNT}{node}"


def members_of(accounts: Iterable[Json]) -> dict[str, Json]:
    """Return the ServiceAccounts of machines by the name of the machine. Args: accounts: of their namespace."""
    return {
        name.removeprefix(ACCOUNT): body
        for body in accounts
        for name in (body["metadata"]["name"],)
        if name.startswith(ACCOUNT) and KEY_ANNOTATION in (body["metadata"].get("annotations") or {})
    }
