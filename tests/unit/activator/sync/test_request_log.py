"""What is kept of the request log of each instance, and which readers follow it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.sync.request_log import Readers, RecentLines
from knoll.messages.request_log import FOLLOW_SECONDS, LogLine, Question


def texts(lines: RecentLines, instance: str) -> list[str]:
    return [line.text for line in lines.of(instance)]


def test_the_newest_lines_of_each_instance_are_kept() -> None:
    lines = RecentLines(most_bytes=6, most_instances=2)
    for at, (instance, text) in enumerate([("a/x", "one"), ("a/x", "two"), ("a/y", "other"), ("a/x", "three")]):
        lines.add(instance, LogLine(at, text))
    assert texts(lines, "a/x") == ["three"]
    assert texts(lines, "a/y") == ["other"]
    lines.add("a/z", LogLine(9, "new"))
    assert texts(lines, "a/y") == []
    assert texts(lines, "a/x") == ["three"]
    assert texts(lines, "a/z") == ["new"]


def test_a_line_longer_than_the_bound_is_kept_alone() -> None:
    lines = RecentLines(most_bytes=3)
    for text in ("a", "much longer", "much longer still"):
        lines.add("a/x", LogLine(0, text))
    assert texts(lines, "a/x") == ["much longer still"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.text(max_size=9)), max_size=60))
def test_what_is_kept_is_bounded_and_the_newest(added: list[tuple[str, str]]) -> None:
    lines = RecentLines(most_bytes=20, most_instances=3)
    for instance, text in added:
        lines.add(instance, LogLine(0, text))
    kept = {instance: texts(lines, instance) for instance in "abcd" if lines.of(instance)}
    assert len(kept) <= 3
    for instance, newest in kept.items():
        assert sum(map(len, newest)) <= 20
        assert [text for name, text in added if name == instance][-len(newest) :] == newest
    if added:
        assert added[-1][0] in kept


@pytest.mark.parametrize("follow", [True, False])
def test_followers_get_new_lines_until_they_stop_asking(follow: bool) -> None:
    readers, question = Readers(), Question("1", "a/x", follow)
    assert readers.asked(question, 0)
    assert readers.asked(question, 1) is not follow
    assert list(readers.of("a/x", FOLLOW_SECONDS + 1)) == (["1"] if follow else [])
    assert list(readers.of("a/y", 1)) == []
    assert list(readers.of("a/x", FOLLOW_SECONDS + 1.1)) == []
    assert readers.asked(question, FOLLOW_SECONDS + 2)
