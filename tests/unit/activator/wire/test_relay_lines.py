"""The lines between activators: what is written can be parsed, and nothing else is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.wire.http1_parser import read_response
from activator.wire.relay_lines import (
    MARK,
    MAX_LINE,
    Mode,
    Target,
    Verb,
    parse_request,
    parse_statement,
    request_line,
    statement,
)

NAME = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(namespace=NAME, revision=NAME, instance=NAME, mode=st.sampled_from(Mode))
def test_a_request_line_names_its_instance(namespace: str, revision: str, instance: str, mode: Mode) -> None:
    line = request_line(f"{namespace}/{revision}", instance, mode)
    assert line.endswith(b"\r\n")
    assert len(line) <= MAX_LINE
    assert parse_request(line[:-2]) == Target(f"{namespace}/{revision}", instance, mode)


@given(verb=st.sampled_from(Verb), text=st.text(max_size=2000))
def test_a_statement_is_one_line_whatever_its_text(verb: Verb, text: str) -> None:
    line = statement(verb, text)
    assert line.count(b"\r\n") == 1
    assert b"\n" not in line[:-2]
    assert len(line) <= MAX_LINE
    parsed = parse_statement(line[:-2])
    assert parsed is not None
    assert parsed[0] is verb


@given(revision=NAME, instance=NAME)
def test_a_free_slot_names_revision_and_instance_whole(revision: str, instance: str) -> None:
    text = f"default/{revision} {instance}"
    assert parse_statement(statement(Verb.FREE, text)[:-2]) == (Verb.FREE, text)


@pytest.mark.parametrize(
    "line",
    [b"", b"GET / HTTP/1.1", MARK, MARK + b"a b", MARK + b"a b later", MARK + b"a b now c", MARK + b" b now",
     MARK + b"a  now", b"RELAY/2 a b now", MARK + b"\xff b now", b"a b now"],
)  # fmt: skip
def test_other_lines_are_not_requests(line: bytes) -> None:
    assert parse_request(line) is None


@pytest.mark.parametrize("line", [b"", MARK, MARK + b"perhaps", b"RELAY/2 busy", b"busy", b"HTTP/1.1 200 OK"])
def test_other_lines_are_not_statements(line: bytes) -> None:
    assert parse_statement(line) is None


@pytest.mark.parametrize("verb", Verb)
def test_no_statement_can_be_a_response(verb: Verb) -> None:
    assert read_response(statement(verb) + b"\r\n") is None
    assert not b"HTTP/1.1".startswith(MARK[:1])
