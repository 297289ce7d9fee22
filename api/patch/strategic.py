"""Strategic merge patch, which `kubectl patch` uses for the built-in kinds. Pure.

Objects are merged as in a merge patch, and lists of objects by their merge key. The directives `$patch`,
`$retainKeys`, `$setElementOrder` and `$deleteFromPrimitiveList` are supported.

Source: Kubernetes `k8s.io/apimachinery/pkg/util/strategicpatch`.
"""

from collections.abc import Mapping
from typing import Any

from knoll.values.errors import BadRequestError
from knoll.values.json import Json

_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "port",
    "secrets": "name",
    "imagePullSecrets": "name",
    "ownerReferences": "uid",
    "conditions": "type",
}
"""Merge keys by field name; lists without one are replaced."""
_CONTAINER_PORTS = "containerPort"
_PRIMITIVE = frozenset({"finalizers"})
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def merge(old: Json, patch: Json, kind: str) -> Json:
    """Apply `patch` to an object of `kind`. Mutates neither.

    Raises: BadRequestError: an unknown directive, or an element without its merge key.
    """
    return _object(old, patch, kind)


def _object(old: Any, patch: Json, at: str) -> Json:
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        replacement: Json = _plain({key: value for key, value in patch.items() if key != "$patch"})
        return replacement
    if directive not in (None, "merge"):
        raise BadRequestError(f"unknown patch type {str(directive)[:40]!r} in map of a strategic merge patch")
    result = dict(old) if isinstance(old, dict) else {}
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            field = key.removeprefix(_DELETE_FROM)
            doomed = value if isinstance(value, list) else []
            result[field] = [item for item in result.get(field) or [] if item not in doomed]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _object(result.get(key), value, key)
        elif isinstance(value, list):
            result[key] = _list(result.get(key), value, key, at)
        else:
            result[key] = value
    for key, order in patch.items():
        field = key.removeprefix(_ORDER)
        if field != key and isinstance(result.get(field), list) and isinstance(order, list):
            result[field] = _ordered(result[field], order, _key(field, at))
    return result


def _key(field: str, at: str) -> str | None:
    if field == "ports" and at in ("containers", "initContainers"):
        return _CONTAINER_PORTS
    return _KEYS.get(field)


def _list(old: Any, patch: list[Any], field: str, at: str) -> list[Any]:
    existing = list(old) if isinstance(old, list) else []
    if field in _PRIMITIVE:
        return existing + [item for item in patch if item not in existing]
    key = _key(field, at)
    if key is None or not all(isinstance(item, dict) for item in patch):
        replaced: list[Any] = _plain(patch)
        return replaced
    if any(item.get("$patch") == "replace" for item in patch):
        return [_plain(item) for item in patch if item.get("$patch") != "replace"]
    for item in patch:
        if key not in item:
            raise BadRequestError(f"strategic merge patch: an element of {field} lacks its merge key {key}")
        index = next((n for n, had in enumerate(existing) if isinstance(had, dict) and had.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if index is not None:
                del existing[index]
        elif index is None:
            existing.append(_object({}, item, field))
        else:
            existing[index] = _object(existing[index], item, field)
    return existing


def _plain(value: Any) -> Any:
    """`value` without directives and nulls, for a new object."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items() if not key.startswith("$") and child is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _ordered(items: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """`items` sorted by `order`; items that it does not name stay behind their predecessor."""
    names = [item.get(key) if isinstance(item, dict) else item for item in order] if key else order
    rank = {str(name): place for place, name in enumerate(names)}
    last = -1.0
    ranked: list[tuple[float, int, Any]] = []
    for at, item in enumerate(items):
        name = str(item.get(key) if key and isinstance(item, dict) else item)
        last = float(rank[name]) if name in rank else last
        ranked.append((last, at, item))
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])]
