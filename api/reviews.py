"""Questions that clients ask about themselves: may I, and who am I. Pure."""

from typing import Any

from api.identity import User
from knoll.errors import BadRequestError

Json = dict[str, Any]

AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"


def access(body: Any, user: User) -> Json:
    """The answer to a SelfSubjectAccessReview: everybody who is let in may do everything.

    Raises: BadRequestError.
    """
    spec = body.get("spec") if isinstance(body, dict) else None
    if not isinstance(spec, dict) or not (spec.get("resourceAttributes") or spec.get("nonResourceAttributes")):
        raise BadRequestError("a SelfSubjectAccessReview needs spec.resourceAttributes or spec.nonResourceAttributes")
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": f"{AUTHORIZATION}/v1",
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": {"allowed": True, "reason": f"{user.name} administers this platform"},
    }


def who(user: User) -> Json:
    """The answer to a SelfSubjectReview."""
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": f"{AUTHENTICATION}/v1",
        "metadata": {"creationTimestamp": None},
        "status": {"userInfo": {"username": user.name, "groups": list(user.groups)}},
    }
