"""Parses request bodies: JSON, YAML and protobuf, with limits on bytes, depth and number of values. Pure.

YAML is built from libyaml's event stream and not by a loader, so that the parser does not recurse, each alias counts as
many values as it repeats (an expansion bomb fails early), and duplicate keys are detected.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import yaml

from api.wire import protobuf
from knoll.values.errors import BadRequestError, TooLargeError, UnsupportedMediaTypeError
from knoll.values.json import Json

MAX_BYTES = 3 * 1024 * 1024
"""Limit of a request body, as in Kubernetes."""
LARGE = 64 * 1024
"""Size in bytes above which a body is parsed in another thread, so as not to block the event loop."""
MAX_DEPTH = 100
"""Limit of nesting."""
MAX_NODES = 100_000
"""Limit of the values in a body, including those that YAML aliases repeat."""
_LONGEST_NUMBER = 256
"""Longest number in YAML, in characters; longer scalars are strings, without matching expensive expressions."""
_TEXT_WEIGHT = 32
"""Number of characters of a string that count as another value."""

JSON = "application/json"
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/vnd.yaml"})
GUESSED_TYPES = frozenset({"", "application/x-www-form-urlencoded", "text/plain", "application/octet-stream", "*/*"})
"""Default types of curl and others: the content decides between JSON and YAML."""


@dataclass(slots=True)
class Parsed:
    """A parsed body and its duplicate keys."""

    value: Any
    large: bool = False
    """Whether validation takes long enough to need another thread."""
    duplicates: list[str] = field(default_factory=list)
    """Paths of repeated keys, such as `spec.template`; the last value counts."""


def media_type(header: str) -> str:
    """Return the media type of a Content-Type header without parameters, lower case."""
    return header.partition(";")[0].strip().lower()


def parse(raw: bytes, content_type: str) -> Parsed:
    """Parse the body of a create, replace or delete.

    Raises:
        BadRequestError: it is malformed, contains several documents, or is nested too deeply.
        UnsupportedMediaTypeError: the type is not supported.
    """
    parsed = _parse(raw, media_type(content_type))
    parsed.large = len(raw) > LARGE
    return parsed


def _parse(raw: bytes, kind: str) -> Parsed:
    if kind == protobuf.MEDIA_TYPE:
        return Parsed(protobuf.decode(raw))
    if kind == JSON:
        return parse_json(raw)
    if kind in YAML_TYPES or kind in GUESSED_TYPES:
        # Not all JSON is YAML: libyaml rejects characters that JSON writes as two escapes.
        if raw.lstrip()[:1] in (b"{", b"[") and _is_json(raw):
            parsed = parse_json(raw)
            parsed.duplicates = json_duplicates(raw)
            return parsed
        return parse_yaml(raw)
    raise UnsupportedMediaTypeError(
        f"the body of the request was in an unknown format - accepted media types include: {JSON}, application/yaml, "
        f"{protobuf.MEDIA_TYPE}; it was sent as {kind[:100]!r}"
    )


def _is_json(raw: bytes) -> bool:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True


def parse_json(raw: bytes) -> Parsed:
    """Raises: BadRequestError."""
    if not raw.strip():
        raise BadRequestError("the request has no body; a JSON or YAML object is expected")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(
            f"the object provided is unrecognized: couldn't parse the body as JSON: {error}"
        ) from None
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        check_depth(value)
    if raw.count(b",") >= MAX_NODES:
        _check_nodes(value)
    return Parsed(value)


def _check_nodes(value: Any) -> None:
    """Raises: BadRequestError: more than `MAX_NODES` values, each of which costs far more to validate than to parse."""
    level, seen = [value], 0
    while level:
        seen += len(level)
        if seen > MAX_NODES:
            raise BadRequestError(f"the body holds more than {MAX_NODES} values")
        below: list[Any] = []
        for item in level:
            below.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        level = below


def json_duplicates(raw: bytes) -> list[str]:
    """Return the repeated keys of a valid JSON text of limited depth."""
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> Json:
        result = dict(items)
        if len(result) < len(items):
            times = Counter(key for key, _ in items)
            repeated.extend(sorted(key for key, count in times.items() if count > 1))
        return result

    json.loads(raw, object_pairs_hook=pairs)
    return repeated


def check_depth(value: Any) -> None:
    """Raises: BadRequestError: nested deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(child for child in item.values() if isinstance(child, dict | list))
            elif isinstance(item, list):
                below.extend(child for child in item if isinstance(child, dict | list))
        if not below:
            return
        level = below
    raise BadRequestError(f"the body is nested deeper than {MAX_DEPTH} levels")


class _Scalars(yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """PyYAML's rules for plain scalars, without its loader."""

    def __init__(self) -> None:
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)
        self._resolve: Callable[..., str] = self.resolve

    def value(self, event: yaml.ScalarEvent) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            if not event.implicit[0] or len(event.value) > _LONGEST_NUMBER:
                return event.value
            tag = self._resolve(yaml.ScalarNode, event.value, event.implicit)
        # Kubernetes converts YAML to JSON: no dates, no base 60, no bytes.
        kind = tag.removeprefix("tag:yaml.org,2002:")
        if kind in ("str", "timestamp", "binary", "value", "merge") or (
            kind in ("int", "float") and ":" in event.value
        ):
            return event.value
        if kind not in ("int", "float", "bool", "null"):
            raise _unreadable(event, f"the tag {tag[:60]!r} is not supported")
        try:
            value = self.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError, yaml.YAMLError):
            raise _unreadable(event, f"{event.value[:60]!r} is not a valid {kind}") from None
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            raise _unreadable(event, f"{event.value[:60]!r} cannot be written in JSON")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise _unreadable(event, f"{event.value[:60]!r} is too large")
        return value


def _unreadable(event: Any, why: str) -> BadRequestError:
    mark = event.start_mark
    return BadRequestError(f"error converting YAML to JSON: line {mark.line + 1}, column {mark.column + 1}: {why}")


@dataclass(slots=True)
class _Open:
    """A collection that is being parsed."""

    value: Any
    anchor: str | None
    at_start: int
    """Number of values before it."""
    key: str | None = None
    """In a mapping: the key whose value comes next."""
    merging: bool = False
    """Whether that key is the merge key."""
    merges: list[Json] = field(default_factory=list)


_MERGE_KEY = "<<"


def _weight(event: yaml.ScalarEvent) -> int:
    """How much a scalar counts: aliases may repeat a long string."""
    return 1 + len(event.value) // _TEXT_WEIGHT


class _Builder:
    """Turns YAML events of one document into JSON values."""

    def __init__(self) -> None:
        self.root: Any = None
        self.duplicates: list[str] = []
        self._scalars = _Scalars()
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0

    def scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            value: Any = self._scalars.value(event)
            self._take_key(top, event, value)
            self._count(_weight(event), event)
            self._anchor(event.anchor, value, _weight(event))
            return
        self._count(_weight(event), event)
        value = self._scalars.value(event)
        self._anchor(event.anchor, value, _weight(event))
        self._place(value, event)

    def start(self, event: Any, value: Any) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise _unreadable(event, "keys must be strings")
        self._count(1, event)
        if len(self._stack) >= MAX_DEPTH:
            raise BadRequestError(f"the body is nested deeper than {MAX_DEPTH} levels")
        self._stack.append(_Open(value, event.anchor, self._nodes - 1))

    def end(self, event: Any) -> None:
        done = self._stack.pop()
        for merged in done.merges:
            done.value = {**merged, **done.value}
        self._anchor(done.anchor, done.value, self._nodes - done.at_start)
        self._place(done.value, event)

    def alias(self, event: yaml.AliasEvent) -> None:
        name = event.anchor or ""
        if name not in self._anchors:
            raise _unreadable(event, f"the anchor {name[:60]!r} is not defined, or contains itself")
        value, size = self._anchors[name]
        self._count(size, event)
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self._take_key(top, event, value)
            return
        self._place(value, event)

    def _count(self, size: int, event: Any) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            raise _unreadable(event, f"more than {MAX_NODES} values after the expansion of aliases")

    def _anchor(self, name: str | None, value: Any, size: int) -> None:
        if name is not None:
            self._anchors[name] = (value, size)

    def _take_key(self, top: _Open, event: Any, value: Any) -> None:
        if isinstance(value, dict | list):
            raise _unreadable(event, "keys must be strings")
        text = value if isinstance(value, str) else getattr(event, "value", None) or str(value)
        # A quoted "<<" is an ordinary key.
        top.merging = text == _MERGE_KEY and isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if text in top.value and not top.merging:
            self.duplicates.append(".".join([*(item.key for item in self._stack if item.key), text]))
        top.key = text

    def _place(self, value: Any, event: Any) -> None:
        if not self._stack:
            self.root = value
            return
        top = self._stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            return
        key, top.key = top.key or "", None
        if not top.merging:
            top.value[key] = value
            return
        for merged in value if isinstance(value, list) else [value]:
            if not isinstance(merged, dict):
                raise _unreadable(event, "<< can only merge mappings")
            top.merges.append(merged)


def parse_yaml(raw: bytes) -> Parsed:
    """Parse one YAML document; empty documents are ignored.

    Raises:
        BadRequestError: malformed, empty, several documents, or over a limit; the message has line and column.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequestError(f"the body is not UTF-8 text: {error}") from None
    documents: list[_Builder] = []
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            _feed(documents, event)
    except yaml.YAMLError as error:
        raise BadRequestError(f"error converting YAML to JSON: {_where(error)}") from None
    except ValueError as error:
        raise BadRequestError(f"error converting YAML to JSON: {error}") from None
    filled = [document for document in documents if document.root is not None]
    if len(filled) > 1:
        raise BadRequestError(
            f"the body contains {len(filled)} YAML documents, expected one: send each in its own request"
        )
    if not filled:
        raise BadRequestError("the request has no body; a JSON or YAML object is expected")
    # Aliases share values; a change in one place must not affect the other.
    value = orjson.loads(orjson.dumps(filled[0].root))
    check_depth(value)
    return Parsed(value, duplicates=filled[0].duplicates)


def _feed(documents: list[_Builder], event: Any) -> None:
    match event:
        case yaml.DocumentStartEvent():
            documents.append(_Builder())
        case yaml.ScalarEvent():
            documents[-1].scalar(event)
        case yaml.AliasEvent():
            documents[-1].alias(event)
        case yaml.MappingStartEvent():
            documents[-1].start(event, {})
        case yaml.SequenceStartEvent():
            documents[-1].start(event, [])
        case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
            documents[-1].end(event)
        case _:
            pass


def _where(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"


def too_large(limit: int, size: int | None = None) -> TooLargeError:
    """Return the error for a body over `limit` bytes."""
    seen = f", got {size}" if size is not None else ""
    return TooLargeError(f"Request entity too large: limit is {limit} bytes{seen}")
