"""Warnings as a header that every client can read, whatever a manifest's keys contain."""

import re

from hypothesis import given
from hypothesis import strategies as st

from api.wire.warning_header import MAX_LENGTH, MAX_WARNINGS, headers

ONE = re.compile(r'299 - "((?:[^"\\]|\\.)*)"(?:, |$)', re.S)


def texts(header: str) -> list[str]:
    """What a client reads."""
    line = header.encode("latin-1").decode()
    matches = list(ONE.finditer(line))
    assert "".join(match[0] for match in matches) == line
    return [re.sub(r"\\(.)", r"\1", match[1]) for match in matches]


def test_no_warnings_make_no_header() -> None:
    assert headers([]) == {}


def test_quotes_backslashes_and_other_alphabets_arrive_as_they_were() -> None:
    warnings = ['unknown field "spec.tëmplate.测试"', "a\\b"]
    assert texts(headers(warnings)["Warning"]) == warnings


def test_control_characters_are_written_out() -> None:
    assert texts(headers(["a\x00b\r\n\x85c"])["Warning"]) == ["a\\x00b\\x0d \\x85c"]


def test_there_is_a_most() -> None:
    assert len(texts(headers(["x"] * 500)["Warning"])) == MAX_WARNINGS


@given(st.lists(st.text(max_size=30) | st.just('"' * MAX_LENGTH + "\\" * MAX_LENGTH), min_size=1, max_size=5))
def test_any_warning_gives_a_header_that_can_be_sent_and_read(warnings: list[str]) -> None:
    line = headers(warnings)["Warning"]
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line)
    assert len(texts(line)) == len(warnings)
