"""The template of a request log line: the subset of Go templates that such templates use. Pure.

Source: Knative Serving, config-observability, `logging.request-log-template`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIELDS = (
    "Request.Method", "Request.RequestURI", "Request.Host", "Request.Proto", "Request.ContentLength",
    "Request.UserAgent", "Request.RemoteAddr", "Request.Referer", "Response.Code", "Response.Size", "Response.Latency",
    "Revision.Name", "Revision.Namespace", "Revision.PodName", "Revision.PodIP", "TraceID",
)  # fmt: skip
"""Fields that a template can use, besides `index .Request.Header "Name"` and `.Request.Header.Get "Name"`."""

_ACTION = re.compile(r"\{\{([^{}]*)\}\}")
_FIELD = re.compile(r"\.([A-Za-z.]+)")
_HEADER = re.compile(r'(?:index \.Request\.Header|\.Request\.Header\.Get) "([^"]+)"')
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A part of a line that is replaced with a value of the request."""

    field: str
    """One of `FIELDS`; empty for a header."""
    header: str = ""
    listed: bool = False
    """Formatted as Go formats a list: `[a b]`."""
    escaped: bool = False


Template = tuple[str | Placeholder, ...]


def parse(text: str) -> Template:
    """Raises: ValueError: names the unsupported part and the supported ones."""
    parts: list[str | Placeholder] = []
    end = 0
    for action in _ACTION.finditer(text):
        parts += [text[end : action.start()], _value(action[0], action[1].removeprefix("-").removesuffix("-").strip())]
        end = action.end()
    parts.append(text[end:])
    if any("{{" in part for part in parts if isinstance(part, str)):
        raise ValueError("has unbalanced braces")
    return tuple(part for part in parts if part)


def _value(whole: str, action: str) -> Placeholder:
    expression = action.removeprefix("js ").removeprefix("(").removesuffix(")")
    escaped = action.startswith("js ")
    if (match := _FIELD.fullmatch(expression)) and match[1] in FIELDS:
        return Placeholder(match[1], escaped=escaped)
    if match := _HEADER.fullmatch(expression):
        return Placeholder("", match[1], listed=expression.startswith("index"), escaped=escaped)
    fields = ", ".join(f".{field}" for field in FIELDS)
    raise ValueError(
        f'{whole[:100]!r} is not supported; use {fields}, index .Request.Header "Name", or js before one of them'
    )


def line(template: Template, field: Callable[[str], str], header: Callable[[str], Sequence[str]]) -> str:
    """Return the log line of one request.

    Args:
        field: returns the value of one of `FIELDS`.
        header: returns the values of a header, whose name is case-insensitive.
    """
    return "".join(part if isinstance(part, str) else _filled(part, field, header) for part in template)


def _filled(part: Placeholder, field: Callable[[str], str], header: Callable[[str], Sequence[str]]) -> str:
    if part.field:
        text = field(part.field)
    else:
        values = header(part.header)
        text = f"[{' '.join(values)}]" if part.listed else "".join(values[:1])
    return "".join(map(_escaped, text)) if part.escaped else text


def _escaped(character: str) -> str:
    if character in _JS:
        return _JS[character]
    return character if character.isprintable() else f"\\u{ord(character):04X}"
