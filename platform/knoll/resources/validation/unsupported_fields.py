"""Reports fields of Kubernetes that are set but not supported. Pure."""

from collections.abc import Collection
from functools import cache

from knoll.resources.models.base import REFUSED, Model
from knoll.resources.validation.problems import disallowed
from knoll.values.errors import FieldError


def refused(part: Model, path: str, allowed: Collection[str] = ()) -> list[FieldError]:
    """One problem that names each field of `part` that is set but not supported.

    Args:
        allowed: Python names of fields that are supported here nevertheless.
    """
    fields = [(name, alias) for name, alias in _fields(type(part)) if name not in allowed]
    unsupported = [alias for name, alias in fields if getattr(part, name) is not None]
    return [disallowed(*(f"{path}.{alias}" for alias in unsupported))] if unsupported else []


@cache
def _fields(model: type[Model]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, field.alias or name)
        for name, field in model.model_fields.items()
        if any(mark is REFUSED for mark in field.metadata)
    )
