"""References to variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.spec.expansion import expand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "one"),
        ("x$(A)y$(B)z", "xoneytwoz"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$one"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("$", "$"),
        ("$()", "$()"),
    ],
)
def test_references_are_replaced(text: str, expected: str) -> None:
    assert expand(text, {"A": "one", "B": "two"}) == expected


@given(st.text().filter(lambda text: "$" not in text))
def test_text_without_a_dollar_stays(text: str) -> None:
    assert expand(text, {text: "other"}) == text
