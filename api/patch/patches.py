"""JSON merge patch (RFC 7396) and JSON patch (RFC 6902, strict). Pure.

Nothing given is mutated; results share the parts that did not change.
"""

from typing import Any

from api.wire.status import PatchError
from knoll.values.errors import BadRequestError
from knoll.values.json import Json

MAX_OPERATIONS = 10_000
"""Bound of one JSON patch, as in Kubernetes."""
MAX_COPIED = 3 * 1024 * 1024
"""Bound of what the `copy` operations of one patch may add up to, in characters of JSON (roughly)."""


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
        BadRequestError: the patch is not one.
        PatchError: a path does not exist, or a `test` failed.
    """
    if not isinstance(operations, list):
        raise BadRequestError("a JSON patch must be an array of operations")
    if len(operations) > MAX_OPERATIONS:
        raise PatchError(f"the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}")
    document: Any = target
    copied = 0
    for number, operation in enumerate(operations):
        document, size = _apply(document, operation, number)
        copied += size
        if copied > MAX_COPIED:
            raise PatchError(f"operation {number}: the copies of this patch are too large")
    return document


def _apply(document: Any, operation: Any, number: int) -> tuple[Any, int]:
    if not isinstance(operation, dict) or not isinstance(operation.get("op"), str):
        raise BadRequestError(f"operation {number} of the JSON patch has no op")
    op = operation["op"]
    path = _pointer(operation, "path", number)
    try:
        if op in ("add", "replace", "test"):
            if "value" not in operation:
                raise BadRequestError(f"operation {number} of the JSON patch ({op}) has no value")
            value = operation["value"]
            if op == "test":
                if not _same(_get(document, path), value):
                    raise PatchError(f"operation {number}: testing value {operation['path']} failed")
                return document, 0
            return _put(document, path, value, insert=op == "add"), 0
        if op == "remove":
            return _remove(document, path), 0
        if op in ("move", "copy"):
            source = _pointer(operation, "from", number)
            value = _get(document, source)
            if op == "copy":
                return _put(document, path, value, insert=True), len(repr(value))
            if path[: len(source)] == source and len(path) > len(source):
                raise PatchError(f"operation {number}: cannot move a value into itself")
            return _put(_remove(document, source), path, value, insert=True), 0
    except _MissingError as missing:
        raise PatchError(
            f"operation {number}: {op} operation does not apply: doc is missing {missing}: {operation['path']}"
        ) from None
    raise BadRequestError(f"operation {number} of the JSON patch has the unknown op {op[:40]!r}")


class _MissingError(Exception):
    """A path leads nowhere; says what was missing."""


def _pointer(operation: Json, field: str, number: int) -> tuple[str, ...]:
    """Source: RFC 6901 §4."""
    text = operation.get(field)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise BadRequestError(f"operation {number} of the JSON patch needs a JSON pointer as its {field}")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def _index(part: str, length: int) -> int:
    """An array index below `length`. Source: RFC 6901 §4: digits, no leading zeros."""
    if not part.isascii() or not part.isdigit() or len(part) > 9 or (part != "0" and part.startswith("0")):
        raise _MissingError(f"index {part[:40]!r}")
    if int(part) >= length:
        raise _MissingError(f"index {part}")
    return int(part)


def _get(document: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        document = _child(document, part)
    return document


def _child(document: Any, part: str) -> Any:
    if isinstance(document, dict):
        if part not in document:
            raise _MissingError("key")
        return document[part]
    if isinstance(document, list):
        return document[_index(part, len(document))]
    raise _MissingError("path")


def _put(document: Any, path: tuple[str, ...], value: Any, *, insert: bool) -> Any:
    """A copy of `document` with `value` at `path`; without `insert` only in place of what is there."""
    if not path:
        return value
    part, rest = path[0], path[1:]
    if rest:
        return _with(document, part, _put(_child(document, part), rest, value, insert=insert))
    if isinstance(document, list) and insert:
        at = len(document) if part == "-" else _index(part, len(document) + 1)
        return [*document[:at], value, *document[at:]]
    if not insert:
        _child(document, part)
    if not isinstance(document, dict | list):
        raise _MissingError("path")
    return _with(document, part, value)


def _with(document: Any, part: str, value: Any) -> Any:
    if isinstance(document, dict):
        return {**document, part: value}
    at = _index(part, len(document))
    return [*document[:at], value, *document[at + 1 :]]


def _remove(document: Any, path: tuple[str, ...]) -> Any:
    if not path:
        raise PatchError("a JSON patch cannot remove the whole object")
    part, rest = path[0], path[1:]
    child = _child(document, part)
    if rest:
        return _with(document, part, _remove(child, rest))
    if isinstance(document, dict):
        return {key: value for key, value in document.items() if key != part}
    at = _index(part, len(document))
    return [*document[:at], *document[at + 1 :]]


def _same(left: Any, right: Any) -> bool:
    """JSON equality: `1` is not `true`. Source: RFC 6902 §4.6."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
