"""What every model of the wire has in common: frozen, camelCase outside and snake_case inside, exact types.

A field that is at its default is left out when an object is written as JSON. A field that must show its zero (such as
`percent: 0`) therefore has None as its default, and an object that must show although it is empty (`resources: {}`)
is None until it was given.
"""

from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictBool, StrictInt, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from knoll.values.json import Json
from knoll.values.kinds import Kind
from knoll.values.numbers import INT32_MAX, INT64_MAX
from knoll.values.quantity import PATTERN, canonical, parse_quantity


def _bounded(low: int, high: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and not low <= value <= high:
            raise PydanticCustomError("out_of_range", "must be between {low} and {high}", {"low": low, "high": high})
        return value

    return BeforeValidator(check)


Int32 = Annotated[
    StrictInt, _bounded(-INT32_MAX - 1, INT32_MAX), WithJsonSchema({"type": "integer", "format": "int32"})
]
Int64 = Annotated[
    StrictInt, _bounded(-INT64_MAX - 1, INT64_MAX), WithJsonSchema({"type": "integer", "format": "int64"})
]
Bool = StrictBool


def _int_or_string(value: Any) -> int | str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise PydanticCustomError("int_or_string", "must be a whole number or text")


IntOrString = Annotated[Any, BeforeValidator(_int_or_string), WithJsonSchema({"x-kubernetes-int-or-string": True})]
"""A port by number or by name; `int | str` once parsed."""


def _quantity(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        try:
            parse_quantity(value)
        except ValueError as problem:
            raise PydanticCustomError("quantity", "{problem}", {"problem": str(problem)}) from None
        return canonical(value)
    raise PydanticCustomError("quantity", "must be a quantity such as 100m, 2 or 1Gi")


QuantityText = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": PATTERN,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""An amount such as `100m`, `2` or `1Gi`, in canonical form. `quantity.parse_quantity` gives its value."""

REFUSED = "refused"
Refused = Annotated[SkipJsonSchema[Any], BeforeValidator(lambda value: value or None), REFUSED]
"""A field of Kubernetes that Knative knows and does not take: kept as it came, so that validation can name it. `false`,
`0` and empty values are as good as absent."""

T = TypeVar("T")
Flagged = Annotated[SkipJsonSchema[T], REFUSED]
"""A field that is taken only where config-features says so, and is not shown in schemas."""


class Model(BaseModel):
    """A part of an object."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    def to_json(self) -> Json:
        """As clients see it; fields at their default are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def changed(self, **fields: Any) -> Self:
        """A copy with those fields (by their inner names) replaced. Values are trusted, not checked."""
        return self.model_copy(update=fields)


class Resource(Model):
    """A whole object. Each kind has its own fields `spec` and `status`."""

    KIND: ClassVar[Kind]

    api_version: str = ""
    """Group and version of the object's format, for example `serving.knative.dev/v1`."""
    kind: str = ""
    """Name of the object's kind."""

    def to_json(self) -> Json:
        head = {"apiVersion": self.KIND.api_version, "kind": self.KIND.kind}
        return {**head, **super().to_json(), **head}
