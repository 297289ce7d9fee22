"""A readable difference between two JSON values. Pure."""

from collections.abc import Iterator
from typing import Any

import orjson

_MAX_LINES = 20
_MAX_SHOWN = 200


def difference(old: Any, new: Any, path: str = "") -> str:
    """Each path that differs, with the value before (-) and after (+); empty if they are equal."""
    changes = list(_walk(old, new, path))
    if len(changes) > _MAX_LINES:
        changes = [*changes[:_MAX_LINES], f"and {len(changes) - _MAX_LINES} more"]
    return "\n".join(changes)


def _walk(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            where = f"{path}.{key}" if path else key
            yield from _walk(old.get(key, _Absent), new.get(key, _Absent), where)
    elif isinstance(old, list) and isinstance(new, list):
        for at in range(max(len(old), len(new))):
            before = old[at] if at < len(old) else _Absent
            yield from _walk(before, new[at] if at < len(new) else _Absent, f"{path}[{at}]")
    elif old != new or isinstance(old, bool) is not isinstance(new, bool):
        shown = [f"{mark}: {_text(value)}" for mark, value in (("-", old), ("+", new)) if value is not _Absent]
        yield "\n\t".join([f"{path}:", *shown])


class _Absent:
    """A missing value."""


def _text(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
