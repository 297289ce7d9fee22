"""JSON schemas of the kinds, generated from their models in OpenAPI 3.0's dialect. Pure."""

from collections.abc import Mapping
from typing import Any

from api.schema.core_models import MODELS as CORE
from knoll.resources.admission.admit import MODELS as KNATIVE
from knoll.resources.models.base import Resource
from knoll.values.json import Json
from knoll.values.kinds import Kind

MODELS: Mapping[str, type[Resource]] = {**CORE, **KNATIVE}
"""By resource id; kinds that only the controllers write have none."""

_REF = "#/components/schemas/"


def schemas_of(kind: Kind, version: str) -> tuple[str, Json]:
    """Return the name of a kind's schema, and by name every schema that it needs."""
    prefix = f"{'.'.join(reversed(kind.group.split('.'))) if kind.group else 'core'}.{version}"
    name = f"{prefix}.{kind.kind}"
    identity = [{"group": kind.group, "version": version, "kind": kind.kind}]
    model = MODELS.get(kind.id)
    if model is None:
        return name, {name: {**_VIEW, "x-kubernetes-group-version-kind": identity}}
    whole = model.model_json_schema(by_alias=True, ref_template=f"{_REF}{prefix}.{{model}}")
    parts = whole.pop("$defs", {})
    schemas = {f"{prefix}.{part}": _plain(schema) for part, schema in parts.items()}
    schemas[name] = {**_plain(whole), "x-kubernetes-group-version-kind": identity}
    return name, schemas


_VIEW: Json = {
    "description": "A view of the platform's state; only the platform writes it.",
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        "apiVersion": {"type": "string", "description": "API group and version of the object."},
        "kind": {"type": "string", "description": "Kind of the object."},
        "metadata": {"type": "object", "description": "Name, labels and other metadata."},
        "spec": {"type": "object", "description": "Desired state.", "x-kubernetes-preserve-unknown-fields": True},
        "status": {"type": "object", "description": "Observed state.", "x-kubernetes-preserve-unknown-fields": True},
    },
}
_DROPPED = frozenset({"title", "additionalProperties", "default"})


def _plain(schema: Any) -> Any:
    """A schema in OpenAPI 3.0's dialect: no null, no title, references beside other keywords wrapped in `allOf`."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        return _plain({**{key: value for key, value in schema.items() if key != "anyOf"}, **choices[0]})
    result: Json = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _plain(part) for name, part in value.items()}
        elif key == "additionalProperties" and isinstance(value, dict):
            result[key] = _plain(value)
        elif key == "description":
            result[key] = " ".join(str(value).split())
        elif key == "const":
            result["enum"] = [value]
        elif key not in _DROPPED:
            result[key] = _plain(value)
    if "$ref" in result and len(result) > 1:
        reference = result.pop("$ref")
        result["allOf"] = [{"$ref": reference}]
    return result
