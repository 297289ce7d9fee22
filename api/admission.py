"""What stands between a request's body and the store: field validation, defaults, and the rules of each kind."""

from typing import Any

from api import bodies, core, metadata
from api.core_models import MODELS as CORE
from api.identity import User
from api.metadata import Place
from api.options import WriteOptions
from api.schemas import MODELS
from knoll.errors import BadRequestError
from knoll.resources import parsing

Json = dict[str, Any]


class Admission:
    """Decides about bodies; touches nothing outside."""

    def decode(self, parsed: bodies.Parsed, place: Place, options: WriteOptions) -> tuple[Json, list[str]]:
        """The body as an object of the path's kind in its stored version, and warnings about it.

        Raises:
            BadRequestError: another kind or version; with `fieldValidation=Strict` also unknown and repeated fields.
            InvalidResourceError: values of wrong types.
        """
        body = metadata.check_type(parsed.value, place)
        unknown: list[str] = []
        if place.kind.id in CORE:
            body, unknown = core.read(body, place.kind)
        elif place.kind.id in MODELS:
            found, unknown = parsing.parse(MODELS[place.kind.id], body)
            body = found.to_json()
        body.setdefault("metadata", {})
        problems = [f'unknown field "{path}"' for path in unknown]
        problems += [f'duplicate field "{path}"' for path in parsed.duplicates]
        if problems and options.validation == "Strict":
            kind = place.kind.kind
            raise BadRequestError(
                f'{kind} in version "{place.version}" cannot be handled as a {kind}: strict decoding error: '
                + ", ".join(problems)
            )
        return body, problems if options.validation == "Warn" else []

    def admit(self, body: Json, old: Json | None, place: Place, user: User) -> tuple[Json, list[str]]:
        """Defaults and validates a new object (`old` is None) or its next state; returns it and warnings.

        Raises: AdmissionError, InvalidResourceError.
        """
        if place.kind.id in CORE:
            return core.admit(body, old, place.kind), []
        return body, []

    def admit_status(self, body: Json, old: Json, place: Place, user: User) -> tuple[Json, list[str]]:
        """The same for a write to `/status`."""
        return body, []
