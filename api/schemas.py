"""JSON schemas of the kinds, as OpenAPI wants them. Pure."""

from typing import Any

from knoll.kinds import Kind

Json = dict[str, Any]


def schemas_of(kind: Kind, version: str) -> tuple[str, Json]:
    """The kind's schema name, and every schema it needs by name."""
    group = ".".join(reversed(kind.group.split("."))) if kind.group else "core"
    name = f"{group}.{version}.{kind.kind}"
    schema: Json = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"type": "object"},
            "status": {"type": "object"},
        },
        "x-kubernetes-group-version-kind": [{"group": kind.group, "version": version, "kind": kind.kind}],
    }
    return name, {name: schema}
