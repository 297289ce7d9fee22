"""Every error that Knoll raises deliberately, with its HTTP status.

Each process turns them into responses in one place (`api/wire/status.py`, `activator/request/local_responses.py`).
Any other exception is a bug and must show.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class KnollError(Exception):
    """Base of all errors raised deliberately; never raised itself."""

    code = 500
    """HTTP status."""
    reason = "InternalError"
    """Kubernetes' `Status.reason`, which clients evaluate."""


class BadRequestError(KnollError):
    """The request is malformed: invalid JSON or YAML, wrong kind, unknown parameter value."""

    code, reason = 400, "BadRequest"


class UnauthorizedError(KnollError):
    """The bearer token is missing or invalid."""

    code, reason = 401, "Unauthorized"


class ForbiddenError(KnollError):
    """The user is authenticated but not allowed to do this."""

    code, reason = 403, "Forbidden"


class NotFoundError(KnollError):
    """No such object, resource or path."""

    code, reason = 404, "NotFound"


class MethodNotAllowedError(KnollError):
    """The resource does not support this verb."""

    code, reason = 405, "MethodNotAllowed"


class AlreadyExistsError(KnollError):
    """An object of that name exists already."""

    code, reason = 409, "AlreadyExists"


class ConflictError(KnollError):
    """The object changed since it was read: read it again, then retry."""

    code, reason = 409, "Conflict"


class PreconditionError(ConflictError):
    """The object of that name is not the one that the request is about: retrying does not help."""


class ExpiredError(KnollError):
    """The requested resource version is older than the event history: list again and watch from there."""

    code, reason = 410, "Expired"


class RequestTimeoutError(KnollError):
    """A request did not arrive in time."""

    code, reason = 408, "Timeout"


class TooManyRequestsError(KnollError):
    """The client has too many open requests or connections; it can retry later."""

    code, reason = 429, "TooManyRequests"


class HeadTooLargeError(KnollError):
    """The request line and header fields exceed their limit."""

    code, reason = 431, "RequestHeaderFieldsTooLarge"


class TooLargeError(KnollError):
    """A body or an upload exceeds its limit."""

    code, reason = 413, "RequestEntityTooLarge"


class StorageFullError(KnollError):
    """A disk is full: the message says which folder."""

    code, reason = 507, "InsufficientStorage"


class UnsupportedMediaTypeError(KnollError):
    """The body's media type is not supported."""

    code, reason = 415, "UnsupportedMediaType"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem of one object, in the words of Knative's webhook.

    `str()` gives `<problem>: <path>[, <path>]`, followed by the details on a line of their own.
    """

    problem: str
    """For example `must not set the field(s)` or `expected 0 <= 101 <= 100`."""
    paths: tuple[str, ...]
    """For example `spec.traffic[1].percent`; several when the problem is about several fields."""
    details: str = ""

    def __str__(self) -> str:
        text = f"{self.problem}: {', '.join(self.paths)}"
        return f"{text}\n{self.details}" if self.details else text


class InvalidResourceError(KnollError):
    """An object violates the rules of its kind; carries all problems, not only the first."""

    code, reason = 422, "Invalid"

    def __init__(self, causes: Sequence[FieldError]) -> None:
        self.causes = tuple(sorted(causes, key=str))
        super().__init__("\n".join(map(str, self.causes)))


class AdmissionError(KnollError):
    """An object of a knative.dev kind was rejected, in the form of Knative's webhook (400 BadRequest)."""

    code, reason = 400, "BadRequest"

    def __init__(self, causes: Sequence[FieldError]) -> None:
        self.causes = tuple(sorted(causes, key=str))
        problems = "\n".join(map(str, self.causes))
        super().__init__(
            'admission webhook "validation.webhook.serving.knative.dev" denied the request: '
            f"validation failed: {problems}"
        )


class InvalidConfigError(BadRequestError):
    """One of the platform's ConfigMaps has invalid values; carries all problems, not only the first."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.name = name
        """Name of the ConfigMap."""
        self.problems = tuple(problems)
        """Each `<key>: <reason>`."""
        super().__init__(
            'admission webhook "config.webhook.serving.knative.dev" denied the request: validation failed: '
            f"failed to parse {name}: {'; '.join(self.problems)}"
        )


class StoreUnavailableError(KnollError):
    """Redis does not respond; the caller can retry."""

    code, reason = 503, "ServiceUnavailable"


class StoreFullError(StoreUnavailableError):
    """Redis refuses writes because its disk or memory is full; reads still work."""

    code, reason = 507, "InsufficientStorage"


class StoreForbiddenError(KnollError):
    """Redis refuses a command, a key or a channel to the user that this process logs in as."""


class RuntimeUnavailableError(KnollError):
    """The container engine does not respond; the caller can retry."""

    code, reason = 503, "ServiceUnavailable"


class BuildKitUnavailableError(KnollError):
    """The BuildKit daemon does not respond; the message names its address."""

    code, reason = 503, "ServiceUnavailable"


class ImageError(KnollError):
    """An image is missing, cannot be pulled or cannot be resolved; the message names it and says why."""

    code, reason = 422, "ImageError"


class SourceError(KnollError):
    """The source of a build cannot be used: broken archive, path outside of it, no Dockerfile."""

    code, reason = 422, "Invalid"


class QueueFullError(KnollError):
    """A revision's queue of waiting requests is full."""

    code, reason = 503, "ServiceUnavailable"
