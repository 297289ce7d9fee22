"""Responses to the reviews of authentication.k8s.io and authorization.k8s.io. Pure."""

from collections.abc import Sequence
from typing import Any

from api.auth import authorization
from api.auth.authorization import Attributes, Binding
from api.auth.identity import User
from knoll.auth import tokens
from knoll.values.errors import BadRequestError
from knoll.values.json import Json

AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"


def access(body: Any, user: User, bindings: Sequence[Binding]) -> Json:
    """Return the response to a SelfSubjectAccessReview.

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
        raise BadRequestError("the attributes of a SelfSubjectAccessReview must be strings")
    if not spec.get("resourceAttributes"):
        return Attributes(asked.get("verb", ""), path=asked.get("path") or "/")
    fields = ("group", "resource", "subresource", "namespace", "name")
    return Attributes(asked.get("verb", ""), **{field: asked.get(field, "") for field in fields})


def rules(body: Any, user: User, bindings: Sequence[Binding]) -> Json:
    """Return the response to a SelfSubjectRulesReview (`kubectl auth can-i --list`).

    Raises: BadRequestError.
    """
    spec = body.get("spec") if isinstance(body, dict) else None
    if not isinstance(spec, dict) or not isinstance(spec.get("namespace"), str) or not spec["namespace"]:
        raise BadRequestError("a SelfSubjectRulesReview needs spec.namespace")
    documents = [rule.document() for rule in authorization.rules(user, spec["namespace"], bindings)]
    return {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": f"{AUTHORIZATION}/v1",
        "metadata": {"creationTimestamp": None},
        "spec": {},
        "status": {
            "resourceRules": [rule for rule in documents if "resources" in rule],
            "nonResourceRules": [rule for rule in documents if "nonResourceURLs" in rule],
            "incomplete": False,
        },
    }


def requested_token(body: Any) -> tuple[str, list[str]]:
    """Return the token and the audiences of a TokenReview.

    Raises: BadRequestError.
    """
    spec = body.get("spec") if isinstance(body, dict) else None
    token = spec.get("token") if isinstance(spec, dict) else None
    audiences = (spec.get("audiences") or []) if isinstance(spec, dict) else None
    if not isinstance(token, str) or not token:
        raise BadRequestError("a TokenReview needs spec.token")
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise BadRequestError("spec.audiences of a TokenReview must be a list of strings")
    return token, audiences


def token(body: Json, user: User | None, audiences: Sequence[str] = ()) -> Json:
    """Return the response to a TokenReview. Args: user: the user of the token; None if the token is invalid."""
    status: Json = {"authenticated": user is not None}
    if user is None:
        status["error"] = "the token is invalid: wrong audience, expired, or its ServiceAccount was deleted"
    else:
        status |= {"user": _info(user), "audiences": list(audiences) or [tokens.ISSUER]}
    return {
        "kind": "TokenReview",
        "apiVersion": f"{AUTHENTICATION}/v1",
        "metadata": {"creationTimestamp": None},
        "spec": body["spec"],
        "status": status,
    }


def _info(user: User) -> Json:
    info: Json = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    return info


def self_review(user: User) -> Json:
    """Return the response to a SelfSubjectReview."""
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": f"{AUTHENTICATION}/v1",
        "metadata": {"creationTimestamp": None},
        "status": {"userInfo": _info(user)},
    }
