"""JSON merge patch (RFC 7396) and JSON patch (RFC 6902). Pure; nothing that is passed in is mutated.

A JSON patch is applied by the library jsonpatch, one operation at a time, because the library has no bounds: here the
number of operations and the size of what they copy are limited, and nesting that is too deep is a client error.
"""

from typing import Any

import orjson
from jsonpatch import InvalidJsonPatch, JsonPatch, JsonPatchException, JsonPatchTestFailed
from jsonpointer import JsonPointer, JsonPointerException

from api.wire.status import PatchError
from knoll.values.errors import BadRequestError
from knoll.values.json import Json

MAX_OPERATIONS = 10_000
"""Limit of operations in one JSON patch, as in Kubernetes."""
MAX_COPIED = 3 * 1024 * 1024
"""Limit of the values that all `copy` operations of one patch copy in total, in characters of Python's notation."""


def merge(target: Any, patch: Any) -> Any:
    """Apply a merge patch: null removes, objects merge, everything else replaces.

    Source: RFC 7396 §2.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Json, operations: Any) -> Any:
    """Apply a JSON patch; all of it or nothing.

    Raises:
        BadRequestError: the patch is malformed, or nests the object too deeply.
        PatchError: a path does not exist, a `test` failed, or the patch exceeds a limit.
    """
    if not isinstance(operations, list):
        raise BadRequestError("a JSON patch must be an array of operations")
    if len(operations) > MAX_OPERATIONS:
        raise PatchError(f"the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}")
    # Much faster than copy.deepcopy; what is stored is JSON.
    document: Any = orjson.loads(orjson.dumps(target))
    copied = 0
    for number, operation in enumerate(operations):
        patch = _parsed(operation, number)
        try:
            if operation["op"] == "copy":
                copied += len(repr(JsonPointer(operation["from"]).resolve(document)))
                if copied > MAX_COPIED:
                    raise PatchError(f"operation {number}: the copies of this patch are too large")
            document = patch.apply(document, in_place=True)
        except JsonPatchTestFailed:
            raise PatchError(f"operation {number}: testing value {operation['path']} failed") from None
        except (JsonPatchException, JsonPointerException) as error:
            raise PatchError(_inapplicable(operation, number, error)) from None
        except RecursionError:
            raise BadRequestError(f"operation {number} of the JSON patch nests the object too deeply") from None
    return document


def _parsed(operation: Any, number: int) -> JsonPatch:
    where = f"operation {number} of the JSON patch"
    try:
        patch = JsonPatch([operation])
    except (InvalidJsonPatch, JsonPointerException) as error:
        raise BadRequestError(f"{where}: {str(error)[:200]}") from None
    if operation["op"] in ("add", "replace", "test") and "value" not in operation:
        raise BadRequestError(f"{where} ({operation['op']}) has no value")
    if operation["op"] in ("move", "copy"):
        try:
            JsonPointer(operation.get("from"))
        except (JsonPointerException, TypeError):
            raise BadRequestError(f"{where} must have a JSON Pointer in `from`") from None
    return patch


def _inapplicable(operation: Json, number: int, error: Exception) -> str:
    # The library's message may contain the whole object.
    reason = "doc is missing path" if isinstance(error, JsonPointerException) else str(error)[:200]
    return f"operation {number}: {operation['op']} operation does not apply: {reason}: {operation['path']}"
