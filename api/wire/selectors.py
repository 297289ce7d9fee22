"""Label and field selectors. Pure.

Source: Kubernetes `pkg/labels/selector.go` and `pkg/fields` for the grammar.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knoll.values.errors import BadRequestError
from knoll.values.json import Json

_TOKEN = re.compile(r"\s*(?:(==|!=|=|,|\(|\)|!|>|<)|([^\s,()=!<>]+))")
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term: `operator` is `in`, `notin`, `exists`, `absent`, `gt` or `lt`."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "in":
            return value is not None and value in self.values
        if self.operator == "notin":
            return value is None or value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "absent":
            return value is None
        return value is not None and _compares(value, self.operator, next(iter(self.values)))


def _compares(value: str, operator: str, bound: str) -> bool:
    try:
        return int(value) > int(bound) if operator == "gt" else int(value) < int(bound)
    except ValueError:
        return False


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Parse a `labelSelector`.

    Raises:
        BadRequestError: it is invalid; the message contains the text and the position.
    """
    tokens = _tokens(text)
    terms: list[Requirement] = []
    at = 0
    while at < len(tokens):
        term, at = _term(tokens, at, text)
        terms.append(term)
        if at < len(tokens):
            if tokens[at] != ",":
                raise _unparsable(text, f"found '{tokens[at]}', expected: ',' or 'end of string'")
            at += 1
            if at == len(tokens):
                raise _unparsable(text, "found '', expected: identifier after ','")
    return tuple(terms)


def _tokens(text: str) -> list[str]:
    tokens = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unparsable(text, f"unexpected character at {at}")
        tokens.append(match.group(1) or match.group(2))
        at = match.end()
    return tokens


def _term(tokens: list[str], at: int, text: str) -> tuple[Requirement, int]:
    if tokens[at] == "!":
        return Requirement(_key(tokens, at + 1, text), "absent"), at + 2
    key = _key(tokens, at, text)
    at += 1
    if at == len(tokens) or tokens[at] == ",":
        return Requirement(key, "exists"), at
    operator = tokens[at]
    at += 1
    if operator in ("=", "==", "!="):
        value = ""
        if at < len(tokens) and tokens[at] != ",":
            value, at = tokens[at], at + 1
        return Requirement(key, "notin" if operator == "!=" else "in", frozenset({_value(value, text)})), at
    if operator in ("in", "notin"):
        values, at = _values(tokens, at, text)
        return Requirement(key, operator, values), at
    if operator in (">", "<") and at < len(tokens):
        if not re.fullmatch(r"-?\d{1,18}", tokens[at]):
            raise _unparsable(text, f"for '{operator}', the value must be an integer, not '{tokens[at]}'")
        return Requirement(key, "gt" if operator == ">" else "lt", frozenset({tokens[at]})), at + 1
    raise _unparsable(text, f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _values(tokens: list[str], at: int, text: str) -> tuple[frozenset[str], int]:
    if at == len(tokens) or tokens[at] != "(":
        raise _unparsable(text, "expected: '(' after in or notin")
    at += 1
    values: set[str] = set()
    current = ""
    while at < len(tokens) and tokens[at] != ")":
        if tokens[at] == ",":
            values.add(_value(current, text))
            current = ""
        elif current:
            raise _unparsable(text, f"found '{tokens[at]}', expected: ',' or ')'")
        else:
            current = tokens[at]
        at += 1
    if at == len(tokens):
        raise _unparsable(text, "expected: ')'")
    values.add(_value(current, text))
    return frozenset(values), at + 1


def _key(tokens: list[str], at: int, text: str) -> str:
    if at == len(tokens):
        raise _unparsable(text, "found '', expected: !, identifier, or 'end of string'")
    if not _KEY.fullmatch(tokens[at]):
        raise _unparsable(text, f"invalid label key '{tokens[at]}'")
    return tokens[at]


def _value(value: str, text: str) -> str:
    if not _VALUE.fullmatch(value):
        raise _unparsable(text, f"invalid label value '{value}'")
    return value


def _unparsable(text: str, why: str) -> BadRequestError:
    return BadRequestError(f'unable to parse requirement of labelSelector "{text[:200]}": {why}')


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """`path` equals (or does not equal) `value`."""

    path: tuple[str, ...]
    value: str
    equal: bool

    def matches(self, body: Json) -> bool:
        value: Any = body
        for part in self.path:
            value = value.get(part) if isinstance(value, dict) else None
        text = "" if value is None else str(value)
        return (text == self.value) is self.equal


_COMMON_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
_FIELDS: Mapping[str, frozenset[str]] = {
    "pods": frozenset({"status.phase", "status.podIP", "spec.nodeName", "spec.restartPolicy"}),
    "namespaces": frozenset({"status.phase"}),
    "nodes": frozenset({"spec.unschedulable"}),
    "secrets": frozenset({"type"}),
    "events": frozenset(
        {f"involvedObject.{part}" for part in ("name", "namespace", "kind", "uid", "apiVersion", "fieldPath")}
        | {"involvedObject.resourceVersion", "reason", "type", "reportingComponent", "source"}
    ),
}


def parse_fields(text: str, resource: str) -> tuple[FieldTerm, ...]:
    """Parse a `fieldSelector` for the kind with this resource id.

    Raises:
        BadRequestError: bad syntax, or a field that this kind does not support.
    """
    terms = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([A-Za-z0-9_.\-/]+)\s*(==|=|!=)\s*(.*)", term)
        if match is None:
            raise BadRequestError(f'invalid field selector "{term[:200]}": expected FIELD=VALUE or FIELD!=VALUE')
        field, operator, value = match.groups()
        if field not in _COMMON_FIELDS | _FIELDS.get(resource, frozenset()):
            raise BadRequestError(f'field label not supported: "{field}" of {resource}')
        terms.append(FieldTerm(tuple(field.split(".")), value, operator != "!="))
    return tuple(terms)


@dataclass(frozen=True, slots=True)
class Selector:
    """The label and field selectors of a list or watch; empty ones select everything."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()

    @property
    def everything(self) -> bool:
        return not self.labels and not self.fields

    def matches(self, body: Json) -> bool:
        if self.labels:
            labels = body["metadata"].get("labels") or {}
            if not all(term.matches(labels) for term in self.labels):
                return False
        return all(term.matches(body) for term in self.fields)


def parse(label_selector: str, field_selector: str, resource: str) -> Selector:
    """Parse both selectors of a request. Raises: BadRequestError."""
    if not label_selector and not field_selector:
        return EVERYTHING
    return Selector(
        parse_labels(label_selector) if label_selector else (),
        parse_fields(field_selector, resource) if field_selector else (),
    )


EVERYTHING = Selector()
