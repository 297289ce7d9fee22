"""From a client's JSON to a model: reports unknown fields, and explains values of the wrong type. Pure."""

import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from knoll.resources.models.base import Model
from knoll.values.errors import FieldError, InvalidResourceError

M = TypeVar("M", bound=Model)


def parse(model: type[M], body: Mapping[str, Any]) -> tuple[M, list[str]]:
    """Parse an object.

    Args:
        model: of the object's kind.
        body: as the client sent it. A null is treated as absent.

    Returns:
        The object without unknown fields, and the paths of those fields
        (`spec.template.spec.containers[0].foo`) in order of appearance.

    Raises:
        InvalidResourceError: values of the wrong type, each with its path.
    """
    resource, unknown, problems = read(model, body)
    if resource is None:
        raise InvalidResourceError(problems)
    return resource, unknown


def read(model: type[M], body: Mapping[str, Any]) -> tuple[M | None, list[str], list[FieldError]]:
    """Like `parse`, but return the problems; the object is None if there are any."""
    cleaned = without_nulls(body)
    try:
        return model.model_validate(cleaned, by_alias=True, by_name=False, extra="forbid"), [], []
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=True)
    unknown = [path_of(model, item["loc"]) for item in errors if item["type"] == "extra_forbidden"]
    problems = [_problem(model, item) for item in errors if item["type"] != "extra_forbidden"]
    if problems:
        return None, unknown, problems
    return model.model_validate(cleaned, by_alias=True, by_name=False), unknown, []


def without_nulls(value: Any) -> Any:
    """Return a copy without nulls in objects. Go clients send `creationTimestamp: null` and the like."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def path_of(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The path of a value in Knative's format: `spec.containers[0].name`, `metadata.labels[key]`."""
    path = ""
    here: Any = model
    for step in location:
        here = _core(here)
        if isinstance(step, int):
            path, here = f"{path}[{step}]", (get_args(here) or (Any,))[0]
        elif isinstance(here, type) and issubclass(here, BaseModel):
            path, here = (f"{path}.{step}" if path else step), _field(here, step)
        elif get_origin(here) is dict:
            if step == "[key]":
                break
            path, here = f"{path}[{step}]", get_args(here)[1]
        else:
            break
    return path


def _core(annotation: Any) -> Any:
    """The type without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _field(model: type[BaseModel], alias: str) -> Any:
    return next((field.annotation for field in model.model_fields.values() if field.alias == alias), Any)


_WORDS = {
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "missing": "missing field(s)",
    "literal_error": "must be one of {expected}",
    "string_unicode": "must be valid Unicode",
}
_SEEN = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _problem(model: type[BaseModel], item: Any) -> FieldError:
    path = path_of(model, item["loc"]) or "(the object)"
    kind, value = item["type"], item["input"]
    if kind == "missing":
        return FieldError(_WORDS[kind], (path,))
    text = _WORDS[kind].format(**item.get("ctx", {})) if kind in _WORDS else str(item["msg"])
    shown = f"{value[:60]!r}" if isinstance(value, str) else str(value).lower() if isinstance(value, bool | int) else ""
    seen = _SEEN.get(type(value), "null" if value is None else "something else")
    return FieldError(f"invalid value: {shown or seen}", (path,), f"{text}, not {seen}" if kind in _WORDS else text)
