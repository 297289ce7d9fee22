from fractions import Fraction

import pytest
from hypothesis import given

from knoll.values.quantity import canonical, parse_quantity
from tests.strategies import quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 1),
        ("+1", 1),
        ("-1", -1),
        ("100m", Fraction(1, 10)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1k", 1000),
        ("1Ki", 1024),
        ("350Mi", 350 * 1024**2),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-3", Fraction(1, 1000)),
        ("2E", 2 * 10**18),
        ("1Ei", 2**60),
        ("7n", Fraction(7, 10**9)),
        ("100M", 10**8),
        ("1u", Fraction(1, 10**6)),
    ],
)
def test_a_quantity_has_its_exact_value(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "m", "1 ", " 1", "1mi", "1KI", "0x1", "1e", "1_0", "\u0661", "one", "1ee3", "--1", "1" * 61, "NaN", "inf"],
)
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="must be a quantity such as 100m"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("100M", "100M"),
        ("1000M", "1G"),
        ("0", "0"),
        ("0Mi", "0"),
        ("1e3", "1e3"),
        ("0.1n", "1n"),
        ("-0.5", "-500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("0.5Mi", "512Ki"),
        ("2.0", "2"),
        ("400m", "400m"),
        ("100", "100"),
        ("12e-1", "1200e-3"),
    ],
)
def test_a_quantity_is_written_back_in_canonical_form(written: str, shown: str) -> None:
    assert canonical(written) == shown


@given(quantities())
def test_the_canonical_form_has_the_same_value_and_is_its_own(text: str) -> None:
    shown = canonical(text)
    assert parse_quantity(shown) == parse_quantity(text)
    assert canonical(shown) == shown
