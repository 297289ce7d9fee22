from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.values.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0s", 0), ("30s", 30), ("1m30s", 90), ("1h", 3600), ("1.5h", 5400), ("100ms", Fraction(1, 10)),
        ("1h2m3.5s", Fraction(7447, 2)), ("-6s", -6), ("+6s", 6), (".5s", Fraction(1, 2)), ("1us", Fraction(1, 10**6)),
        ("1µs", Fraction(1, 10**6)), ("5.s", 5), ("90m", 5400),
    ],
)  # fmt: skip
def test_a_duration_has_its_exact_value(text: str, seconds: Fraction) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "6", "s", "6 s", "6d", "1h-1m", "--1s", "1e3s", "6S", "9999999999h", "1s" * 40, "\u0663s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (6, "6s"), (90, "1m30s"), (3600, "1h0m0s"), (Fraction(1, 10), "100ms"), (Fraction(3, 2), "1.5s"),
        (-6, "-6s"), (Fraction(7, 10**9), "7ns"), (Fraction(7, 10**6), "7µs"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_as_go_shows_it(seconds: Fraction, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**15).map(lambda millis: Fraction(millis, 1000)))
def test_what_is_shown_reads_back_as_the_same(seconds: Fraction) -> None:
    if seconds < 10**6:
        assert parse_duration(format_duration(seconds)) == seconds
