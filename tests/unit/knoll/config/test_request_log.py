"""Templates of the request log, in the syntax of Go's templates."""

import contextlib
import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.config.request_log import FIELDS, Placeholder, line, parse

KNATIVES = (
    '{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", '
    '"requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "responseSize": "{{.Response.Size}}", '
    '"userAgent": "{{js .Request.UserAgent}}", "remoteIp": "{{js .Request.RemoteAddr}}", '
    '"serverIp": "{{.Revision.PodIP}}", "referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", '
    '"protocol": "{{.Request.Proto}}"}, "traceId": "{{index .Request.Header "X-B3-Traceid"}}"}'
)
"""Every part of what Knative's own example speaks of."""


def rendered(template: str, **values: str) -> str:
    return line(parse(template), lambda field: values.get(field.rpartition(".")[2], field), lambda name: [name, "b"])


def test_knatives_own_template_gives_json() -> None:
    line = json.loads(rendered(KNATIVES, Code="200", UserAgent='o\'neill "x" <y>'.replace("'", "")))
    assert line["httpRequest"]["status"] == 200
    assert line["httpRequest"]["requestMethod"] == "Request.Method"
    assert line["httpRequest"]["userAgent"] == 'oneill "x" <y>'
    assert line["traceId"] == "[X-B3-Traceid b]"


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("", ""),
        ("plain }} text", "plain }} text"),
        ("{{.Response.Code}}", "Response.Code"),
        ("{{ .Response.Code }}|{{- .Request.Host -}}", "Response.Code|Request.Host"),
        ('{{.Request.Header.Get "Via"}}', "Via"),
        ('{{js (.Request.Header.Get "a=b")}}', "a\\u003Db"),
        ('{{index .Request.Header "Via"}}', "[Via b]"),
        ("{{js .Request.Proto}}", "Request.Proto"),
    ],
)
def test_what_a_template_says(template: str, line: str) -> None:
    assert rendered(template) == line


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{.Request.Body}}", "'{{.Request.Body}}' is not supported; use .Request.Method, "),
        ("{{if true}}x{{end}}", "'{{if true}}' is not supported"),
        ("{{.Request.Method}", "has unbalanced braces"),
        ('{{index .Response.Header "a"}}', "is not supported"),
    ],
)
def test_an_unknown_field_is_named_with_the_known_ones(template: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse(template)


@given(st.lists(st.one_of(st.sampled_from(FIELDS), st.text(string.printable.replace("{", "")))))
def test_text_stays_as_it_is_around_the_fields(parts: list[str]) -> None:
    template = "".join(f"{{{{.{part}}}}}" if part in FIELDS else part for part in parts)
    assert rendered(template) == "".join(parts)
    assert [part.field for part in parse(template) if isinstance(part, Placeholder)] == [
        part for part in parts if part in FIELDS
    ]


@given(st.text())
def test_escaped_text_ends_no_string_of_json(text: str) -> None:
    escaped = line(parse('{"a": "{{js .Request.Host}}"}'), lambda _: text.replace("'", ""), lambda _: [])
    if all(ord(character) < 0x10000 for character in text):
        assert json.loads(escaped)["a"] == text.replace("'", "")


@given(st.text())
def test_any_text_is_a_template_or_a_problem(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(part in text for part in parse(text) if isinstance(part, str))
