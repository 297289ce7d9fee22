"""What all models have in common: frozen, camelCase in JSON and snake_case in Python, strict types.

Fields with their default value are omitted from JSON. A field whose zero must be shown (such as `percent: 0`) therefore
has None as its default, and so has an object that must be shown although it is empty (`resources: {}`).
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
    raise PydanticCustomError("int_or_string", "must be a whole number or a string")


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
"""A field of Kubernetes that Knative does not allow: kept unparsed, so that validation can name it. `false`, `0` and
empty values are treated as absent."""

T = TypeVar("T")
Flagged = Annotated[SkipJsonSchema[T], REFUSED]
"""A field that is allowed only if config-features enables it, and is not shown in schemas."""


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
        """The JSON that clients see; fields with their default value are omitted."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def changed(self, **fields: Any) -> Self:
        """Return a copy with these fields (by Python name) replaced. Values are not validated."""
        return self.model_copy(update=fields)


class Resource(Model):
    """An object. Each kind has its own fields `spec` and `status`."""

    KIND: ClassVar[Kind]

    api_version: str = ""
    """API group and version of the object, for example `serving.knative.dev/v1`."""
    kind: str = ""
    """Kind of the object."""

    def to_json(self) -> Json:
        head = {"apiVersion": self.KIND.api_version, "kind": self.KIND.kind}
        return {**head, **super().to_json(), **head}
