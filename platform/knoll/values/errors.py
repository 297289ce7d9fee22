"""Every error Knoll raises on purpose, with the status it becomes.

Each process turns them into responses in one place (`api/wire/status.py`, `activator/request/local_responses.py`).
Any other exception is a bug and must show.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class KnollError(Exception):
    """Base of every error raised on purpose; never raised itself."""

    code = 500
    """HTTP status."""
    reason = "InternalError"
    """Kubernetes `Status.reason`, which clients decide on."""


class BadRequestError(KnollError):
    """The request cannot be understood: broken JSON or YAML, wrong kind, unknown parameter value."""

    code, reason = 400, "BadRequest"


class UnauthorizedError(KnollError):
    """No or an unknown bearer token."""

    code, reason = 401, "Unauthorized"


class ForbiddenError(KnollError):
    """The caller is known and may not do this."""

    code, reason = 403, "Forbidden"


class NotFoundError(KnollError):
    """No such object, resource or path."""

    code, reason = 404, "NotFound"


class MethodNotAllowedError(KnollError):
    """The resource exists and does not take this verb."""

    code, reason = 405, "MethodNotAllowed"


class AlreadyExistsError(KnollError):
    """An object of that name exists already."""

    code, reason = 409, "AlreadyExists"


class ConflictError(KnollError):
    """The object changed since it was read: read it again, then retry."""

    code, reason = 409, "Conflict"


class PreconditionError(ConflictError):
    """The request is about another object than the one that has the name now: trying again does not help."""


class ExpiredError(KnollError):
    """The wanted resource version is older than the event history: list again, then watch from there."""

    code, reason = 410, "Expired"


class RequestTimeoutError(KnollError):
    """A request did not arrive in time."""

    code, reason = 408, "Timeout"


class TooManyRequestsError(KnollError):
    """The caller has more requests or connections open than one may have; later there may be room again."""

    code, reason = 429, "TooManyRequests"


class HeadTooLargeError(KnollError):
    """The request line and the header fields are over their bound."""

    code, reason = 431, "RequestHeaderFieldsTooLarge"


class TooLargeError(KnollError):
    """A body or an upload is over its bound."""

    code, reason = 413, "RequestEntityTooLarge"


class StorageFullError(KnollError):
    """A disk is full: the message says which folder."""

    code, reason = 507, "InsufficientStorage"


class UnsupportedMediaTypeError(KnollError):
    """The body's media type cannot be read here."""

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
    """An object breaks the rules of its kind; carries all problems, not the first."""

    code, reason = 422, "Invalid"

    def __init__(self, causes: Sequence[FieldError]) -> None:
        self.causes = tuple(sorted(causes, key=str))
        super().__init__("\n".join(map(str, self.causes)))


class AdmissionError(KnollError):
    """An object of a knative.dev kind was refused, in the form that Knative's webhook answers (400 BadRequest)."""

    code, reason = 400, "BadRequest"

    def __init__(self, causes: Sequence[FieldError]) -> None:
        self.causes = tuple(sorted(causes, key=str))
        problems = "\n".join(map(str, self.causes))
        super().__init__(
            'admission webhook "validation.webhook.serving.knative.dev" denied the request: '
            f"validation failed: {problems}"
        )


class InvalidConfigError(BadRequestError):
    """One of the platform's ConfigMaps has values that cannot be; carries all problems, not the first."""

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
    """Redis does not answer; the caller may try again."""

    code, reason = 503, "ServiceUnavailable"


class StoreFullError(StoreUnavailableError):
    """Redis takes no writes, because its disk or its memory is full; it still answers reads."""

    code, reason = 507, "InsufficientStorage"


class StoreForbiddenError(KnollError):
    """Redis refuses a command, a key or a channel to the user that this process logs in as."""


class RuntimeUnavailableError(KnollError):
    """The container engine does not answer; the caller may try again."""

    code, reason = 503, "ServiceUnavailable"


class BuildKitUnavailableError(KnollError):
    """The BuildKit daemon does not answer; the message says where it should."""

    code, reason = 503, "ServiceUnavailable"


class ImageError(KnollError):
    """An image is missing, cannot be pulled or cannot be resolved; the message names it and says why."""

    code, reason = 422, "ImageError"


class SourceError(KnollError):
    """Source handed in for a build cannot be used: broken archive, path outside of it, no Dockerfile."""

    code, reason = 422, "Invalid"


class QueueFullError(KnollError):
    """A revision's queue of waiting requests is full."""

    code, reason = 503, "ServiceUnavailable"
