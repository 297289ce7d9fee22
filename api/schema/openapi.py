"""OpenAPI: the v3 index and a document for each group and version. Pure.

kubectl reads in these documents whether the server validates fields (a PATCH operation of the right kind with a
parameter `fieldValidation`), and `kubectl explain` prints their schemas.
"""

import hashlib
from collections.abc import Mapping
from functools import cache

import orjson

from api.schema import discovery
from api.schema.schemas import schemas_of
from knoll import __version__
from knoll.values.json import Json
from knoll.values.kinds import KINDS, Kind

EMPTY_V2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""Content type of the empty v2 document, which old kubectl requires; zero bytes are a valid message."""


def _parameter(name: str, kind: str, text: str, *, where: str = "query") -> Json:
    parameter: Json = {"name": name, "in": where, "description": text, "schema": {"type": kind, "uniqueItems": True}}
    if where == "path":
        parameter["required"] = True
    return parameter


_WRITE = (
    _parameter("dryRun", "string", "All: validate and respond without storing anything"),
    _parameter("fieldManager", "string", "name of the client that changes the object"),
    _parameter("fieldValidation", "string", "Strict, Warn or Ignore: how to handle unknown and repeated fields"),
)
_LIST = (
    _parameter("labelSelector", "string", "label selector"),
    _parameter("fieldSelector", "string", "field selector"),
    _parameter("limit", "integer", "maximum number of objects in one response"),
    _parameter("continue", "string", "token of the previous page, to continue the list"),
    _parameter("resourceVersion", "string", "oldest acceptable version, or the version to watch from"),
    _parameter("watch", "boolean", "stream changes instead of listing objects"),
    _parameter("allowWatchBookmarks", "boolean", "send bookmarks in a watch"),
    _parameter("timeoutSeconds", "integer", "end a watch after this time"),
)
_FORCE = _parameter("force", "boolean", "take over fields that other managers own")
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)


@cache
def index() -> bytes:
    """`/openapi/v3`."""
    listed = {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={_hash(path)}"} for path in paths()}
    return orjson.dumps({"paths": listed})


@cache
def paths() -> Mapping[str, tuple[str, str]]:
    """Return every group and version with a document, by its path."""
    documents = {"api/v1": ("", "v1")}
    for group in discovery.groups():
        for version in discovery.versions(group):
            documents[f"apis/{group}/{version}"] = (group, version)
    return documents


def _hash(path: str) -> str:
    return hashlib.sha256(document(path)).hexdigest()[:32].upper()


@cache
def document(path: str) -> bytes:
    """`/openapi/v3/PATH`, for one of `paths()`."""
    group, version = paths()[path]
    kinds = [kind for kind in KINDS if kind.group == group and version in kind.versions]
    operations: Json = {}
    schemas: Json = {}
    for kind in kinds:
        name, kind_schemas = schemas_of(kind, version)
        schemas.update(kind_schemas)
        operations.update(_operations(path, kind, version, {"$ref": f"#/components/schemas/{name}"}))
    return orjson.dumps(
        {
            "openapi": "3.0.0",
            "info": {"title": "Knoll", "version": __version__},
            "paths": operations,
            "components": {"schemas": schemas},
        }
    )


def _operations(path: str, kind: Kind, version: str, schema: Json) -> Json:
    base = f"/{path}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"/{path}/{kind.plural}"
    own = [_parameter("namespace", "string", "namespace of the object", where="path")] if kind.namespaced else []
    named = [_parameter("name", "string", "name of the object", where="path"), *own]
    collection: Json = {"parameters": own}
    single: Json = {"parameters": named}
    make = _Operation(kind, version, schema)
    for verb, place, method, parameters in (
        ("list", collection, "get", _LIST),
        ("create", collection, "post", _WRITE),
        ("deletecollection", collection, "delete", _LIST),
        ("get", single, "get", ()),
        ("update", single, "put", _WRITE),
        ("patch", single, "patch", (*_WRITE, _FORCE)),
        ("delete", single, "delete", (_WRITE[0],)),
    ):
        if verb in kind.verbs:
            place[method] = make(verb, parameters)
    return {base: collection, f"{base}/{{name}}": single}


class _Operation:
    """Makes the operation objects of one kind."""

    def __init__(self, kind: Kind, version: str, schema: Json) -> None:
        self._kind = kind
        self._version = version
        self._schema = schema

    def __call__(self, verb: str, parameters: tuple[Json, ...]) -> Json:
        kind = self._kind
        content = {"application/json": {"schema": self._schema}}
        scope = "Namespaced" if kind.namespaced else ""
        group = "".join(part.capitalize() for part in (kind.group.removesuffix(".k8s.io") or "core").split("."))
        action_names = {"get": "read", "update": "replace", "deletecollection": "deleteCollection"}
        operation: Json = {
            "operationId": f"{action_names.get(verb, verb)}{group}{self._version.capitalize()}{scope}{kind.kind}",
            "tags": [f"{kind.group or 'core'}_{self._version}"],
            "parameters": list(parameters),
            "responses": {
                "200": {"description": "OK", "content": content},
                "default": {"description": "an error, as a Status object", "content": {"application/json": {}}},
            },
            "x-kubernetes-action": action_names.get(verb, verb) if verb != "create" else "post",
            "x-kubernetes-group-version-kind": {"group": kind.group, "version": self._version, "kind": kind.kind},
        }
        if verb == "create":
            operation["responses"]["201"] = {"description": "Created", "content": content}
        if verb in ("create", "update"):
            operation["requestBody"] = {"required": True, "content": {**content, "application/yaml": content[JSON]}}
        if verb == "patch":
            types = list(_PATCHES)
            if not kind.group or kind.group == "apps":
                types.append("application/strategic-merge-patch+json")
            operation["requestBody"] = {"required": True, "content": {name: {"schema": {}} for name in types}}
        return operation


JSON = "application/json"
