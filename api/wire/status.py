"""Errors as Kubernetes `Status` objects: the one place where the API turns an error into a response."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from starlette.responses import PlainTextResponse, Response

from knoll.values import errors
from knoll.values.json import Json
from knoll.values.kinds import Kind

JSON_TYPE = "application/json"
RETRY_AFTER_SECONDS = 1
"""Seconds after which a client may repeat a request that exceeded a limit. Source: Kubernetes, `tooManyRequests`."""


class PatchError(errors.KnollError):
    """A well-formed patch cannot be applied to the object (RFC 5789 §2.2: 422)."""

    code, reason = 422, "Invalid"


class FutureVersionError(errors.KnollError):
    """The requested resource version is newer than any that exists: it is from another store."""

    code, reason = 504, "Timeout"


class UnknownPathError(errors.NotFoundError):
    """No such path or API group. The response is kube-apiserver's and not a Status: clients rely on it to notice that a
    group is not installed (kn: "no or newer Knative Eventing API found")."""


class UnknownResourceError(errors.NotFoundError):
    """An existing group has no such resource or subresource."""

    def __init__(self, subject: "Subject | None" = None) -> None:
        """Args: subject: the object with the subresource."""
        self.subject = subject
        super().__init__("the server could not find the requested resource")


class ApplyConflictError(errors.KnollError):
    """Server-side apply would change fields that other managers own."""

    code, reason = 409, "Conflict"

    def __init__(self, conflicts: Sequence[tuple[str, str]]) -> None:
        """Args: conflicts: (manager, field path) pairs, at least one."""
        self.conflicts = tuple(conflicts)
        managers = sorted({manager for manager, _ in conflicts})
        if len(conflicts) == 1:
            text = f"Apply failed with 1 conflict: conflict with {_quoted(managers[0])}: {conflicts[0][1]}"
        else:
            lines = []
            for manager in managers:
                lines.append(f"conflicts with {_quoted(manager)}:")
                lines.extend(f"- {path}" for owner, path in conflicts if owner == manager)
            text = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
        super().__init__(text)


def _quoted(manager: str) -> str:
    name, _, version = manager.partition("\n")
    return f'"{name}" using {version}' if version else f'"{name}"'


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that a request's path names."""

    kind: Kind
    name: str = ""


def failure(error: errors.KnollError, subject: Subject | None = None) -> Json:
    """Return the `Status` for `error`, with the subject in its details."""
    status: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": _bounded(str(error) or error.reason),
        "reason": error.reason,
        "code": error.code,
    }
    details: Json = {}
    if isinstance(error, UnknownResourceError):
        # Clients rely on details in such a response (`kubectl debug`).
        subject = subject or error.subject
        status["details"] = {}
    if subject is not None:
        details = {"name": subject.name, "group": subject.kind.group, "kind": subject.kind.plural}
        if error.code == 422 and isinstance(error, errors.InvalidResourceError):
            details["kind"] = subject.kind.kind
            status["message"] = _bounded(_invalid_message(error, subject))
        details = {key: value for key, value in details.items() if value}
    causes = _causes(error)[:_MAX_CAUSES]
    if causes:
        details["causes"] = causes
    if error.code == 429:
        details["retryAfterSeconds"] = RETRY_AFTER_SECONDS
    if details:
        status["details"] = details
    return status


_MAX_MESSAGE = 16 * 1024
_MAX_CAUSES = 100


def _bounded(message: str) -> str:
    """Limit a message: a body with many problems must not cause an even larger response."""
    if len(message) <= _MAX_MESSAGE:
        return message
    return f"{message[:_MAX_MESSAGE]}… and {len(message) - _MAX_MESSAGE} more characters"


def _invalid_message(error: errors.InvalidResourceError, subject: Subject) -> str:
    kind = subject.kind
    of = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    problems = [str(cause) for cause in error.causes]
    listed = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
    return f'{of} "{subject.name}" is invalid: {listed}'


def _causes(error: errors.KnollError) -> list[Json]:
    if isinstance(error, ApplyConflictError):
        return [
            {"reason": "FieldManagerConflict", "message": f"conflict with {_quoted(manager)}", "field": path}
            for manager, path in error.conflicts
        ]
    if isinstance(error, errors.InvalidResourceError):
        return [
            {"reason": "FieldValueInvalid", "message": str(cause), "field": path}
            for cause in error.causes
            for path in cause.paths
        ]
    return []


def success(kind: Kind, name: str, uid: str) -> Json:
    """Return the `Status` for a completed deletion."""
    details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def respond(error: errors.KnollError, subject: Subject | None = None) -> Response:
    """Return the HTTP response for `error`."""
    if isinstance(error, UnknownPathError):
        return PlainTextResponse("404 page not found\n", 404, {"X-Content-Type-Options": "nosniff"})
    return Response(orjson.dumps(failure(error, subject)), error.code, _HEADERS.get(error.code), JSON_TYPE)


_HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    # Otherwise the server would read the rest of the refused body, however long it is.
    413: {"Connection": "close"},
    429: {"Retry-After": str(RETRY_AFTER_SECONDS)},
    503: {"Retry-After": "1"},
}
