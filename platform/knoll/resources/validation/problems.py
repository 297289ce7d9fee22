"""Creates field errors with the messages of Knative's webhook. Pure.

Source: the messages of knative.dev/pkg, apis.FieldError, which tools and tests look for.
"""

from collections.abc import Iterable

from knoll.values.errors import FieldError

_MAX_SHOWN = 1000
"""Maximum length of a quoted value."""


def missing(*paths: str) -> FieldError:
    return FieldError("missing field(s)", paths)


def disallowed(*paths: str) -> FieldError:
    return FieldError("must not set the field(s)", paths)


def invalid(value: object, path: str, details: str = "") -> FieldError:
    return FieldError(f"invalid value: {str(value)[:_MAX_SHOWN]}", (path,), details)


def out_of_bounds(value: object, low: object, high: object, path: str) -> FieldError:
    return FieldError(f"expected {low} <= {str(value)[:_MAX_SHOWN]} <= {high}", (path,))


def missing_one_of(*paths: str) -> FieldError:
    return FieldError("expected exactly one, got neither", paths)


def multiple_one_of(*paths: str) -> FieldError:
    return FieldError("expected exactly one, got both", paths)


def invalid_key(key: str, path: str, details: str = "") -> FieldError:
    return FieldError(f'invalid key name "{key[:_MAX_SHOWN]}"', (path,), details)


def merged(problems: Iterable[FieldError]) -> list[FieldError]:
    """Merge problems with the same message, with all of their paths; sorted by text."""
    paths: dict[tuple[str, str], set[str]] = {}
    for item in problems:
        paths.setdefault((item.problem, item.details), set()).update(item.paths)
    errors = [FieldError(problem, tuple(sorted(where)), details) for (problem, details), where in paths.items()]
    return sorted(errors, key=str)
