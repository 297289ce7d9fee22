from typing import Any

import pytest
from hypothesis import given

from knoll.values.json_diff import difference
from tests.strategies import json_values


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1}, {"a": 2}, "a:\n\t-: 1\n\t+: 2"),
        ({"a": 1}, {}, "a:\n\t-: 1"),
        ({}, {"a": {"b": 1}}, 'a:\n\t+: {"b":1}'),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, "a[1]:\n\t-: 2\n\t+: 3\na[2]:\n\t+: 4"),
        ({"a": True}, {"a": 1}, "a:\n\t-: true\n\t+: 1"),
        ({"b": "x", "a": "y"}, {"b": "z", "a": "w"}, 'a:\n\t-: "y"\n\t+: "w"\nb:\n\t-: "x"\n\t+: "z"'),
    ],
)
def test_each_path_that_differs_is_shown_before_and_after(old: Any, new: Any, text: str) -> None:
    assert difference(old, new) == text


def test_long_differences_are_cut() -> None:
    lines = difference({str(at): 0 for at in range(100)}, {str(at): 1 for at in range(100)})
    assert lines.endswith("and 80 more")
    assert len(difference({"a": "x" * 1000}, {})) < 300


@given(json_values())
def test_nothing_differs_from_itself(value: Any) -> None:
    assert difference(value, value) == ""
