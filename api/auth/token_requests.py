"""Responses to TokenRequests (`kubectl create token`). Pure, except that each token gets a random id."""

from typing import Any

from knoll.auth import tokens
from knoll.values.errors import BadRequestError, FieldError, InvalidResourceError
from knoll.values.json import Json
from knoll.values.timestamps import timestamp


def answer(body: Any, account: Json, key: tokens.SigningKey, now: float, most: int = tokens.MOST_SECONDS) -> Json:
    """Return the TokenRequest with a token of the ServiceAccount `account`.

    Args:
        now: epoch seconds.
        most: longest lifetime, in seconds. A longer requested lifetime is reduced to it, as `expirationTimestamp`
            shows; like kube-apiserver's `--service-account-max-token-expiration`.

    Raises: BadRequestError. InvalidResourceError: the requested lifetime is out of range.
    """
    spec = (body.get("spec") or {}) if isinstance(body, dict) else None
    if not isinstance(spec, dict):
        raise BadRequestError("the body must be a TokenRequest of authentication.k8s.io/v1")
    audiences, seconds = spec.get("audiences") or [], spec.get("expirationSeconds") or tokens.DEFAULT_SECONDS
    if not isinstance(audiences, list) or not all(isinstance(audience, str) and audience for audience in audiences):
        raise BadRequestError("spec.audiences of a TokenRequest must be a list of strings")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise BadRequestError("spec.expirationSeconds of a TokenRequest must be an integer")
    if not tokens.LEAST_SECONDS <= seconds <= tokens.MOST_SECONDS:
        message = f"Invalid value: {seconds}: must be from {tokens.LEAST_SECONDS} to {tokens.MOST_SECONDS}"
        raise InvalidResourceError([FieldError(message, ("spec.expirationSeconds",))])
    if spec.get("boundObjectRef"):
        raise BadRequestError("spec.boundObjectRef is not supported here: tokens are bound to their ServiceAccount")
    seconds = min(seconds, most)
    meta = account["metadata"]
    token = tokens.mint(
        key,
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        now=now,
        seconds=seconds,
        audiences=audiences,
    )
    expires = timestamp(int(now) + seconds)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "creationTimestamp": None},
        "spec": {"audiences": audiences or [tokens.ISSUER], "expirationSeconds": seconds},
        "status": {"token": token, "expirationTimestamp": expires},
    }
