"""Questions that clients ask about themselves: may I, and who am I. Pure."""

from collections.abc import Sequence
from typing import Any

from api import authorization
from api.authorization import Attributes, Binding
from api.identity import User
from knoll.errors import BadRequestError

Json = dict[str, Any]

AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"


def access(body: Any, user: User, bindings: Sequence[Binding]) -> Json:
    """The answer to a SelfSubjectAccessReview.

    Raises: BadRequestError.
    """
    spec = body.get("spec") if isinstance(body, dict) else None
    if not isinstance(spec, dict) or not (spec.get("resourceAttributes") or spec.get("nonResourceAttributes")):
        raise BadRequestError("a SelfSubjectAccessReview needs spec.resourceAttributes or spec.nonResourceAttributes")
    reason = authorization.allowed(user, _attributes(spec), bindings)
    status: Json = {"allowed": reason is not None}
    if reason:
        status["reason"] = reason
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": f"{AUTHORIZATION}/v1",
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": status,
    }


def _attributes(spec: Json) -> Attributes:
    asked = spec.get("resourceAttributes") or spec.get("nonResourceAttributes")
    if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
        raise BadRequestError("the attributes of a SelfSubjectAccessReview must be texts by name")
    if not spec.get("resourceAttributes"):
        return Attributes(asked.get("verb", ""), path=asked.get("path") or "/")
    fields = ("group", "resource", "subresource", "namespace", "name")
    return Attributes(asked.get("verb", ""), **{field: asked.get(field, "") for field in fields})


def who(user: User) -> Json:
    """The answer to a SelfSubjectReview."""
    info: Json = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": f"{AUTHENTICATION}/v1",
        "metadata": {"creationTimestamp": None},
        "status": {"userInfo": info},
    }
