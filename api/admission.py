"""What stands between a request's body and the store: field validation, defaults, and the rules of each kind."""

from typing import Any

from api import bodies, core, metadata
from api.identity import User
from api.metadata import Place
from api.options import WriteOptions
from knoll.errors import BadRequestError

Json = dict[str, Any]


class Admission:
    """Decides about bodies; touches nothing outside."""

    def decode(self, parsed: bodies.Parsed, place: Place, options: WriteOptions) -> tuple[Json, list[str]]:
        """The body as an object of the path's kind in its stored version, and warnings about it.

        Raises:
            BadRequestError: another kind or version; with `fieldValidation=Strict` also unknown and repeated fields.
        """
        body = metadata.check_type(parsed.value, place)
        problems = [f'duplicate field "{path}"' for path in parsed.duplicates]
        if problems and options.validation == "Strict":
            raise BadRequestError(f"strict decoding error: {', '.join(problems)}")
        return body, problems if options.validation == "Warn" else []

    def admit(self, body: Json, old: Json | None, place: Place, user: User) -> tuple[Json, list[str]]:
        """Defaults and validates a new object (`old` is None) or its next state; returns it and warnings.

        Raises: AdmissionError, InvalidResourceError.
        """
        if place.kind.group == "" or place.kind.group.endswith("k8s.io"):
            return core.admit(body, old, place.kind), []
        return body, []

    def admit_status(self, body: Json, old: Json, place: Place, user: User) -> tuple[Json, list[str]]:
        """The same for a write to `/status`."""
        return body, []
