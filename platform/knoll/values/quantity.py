"""Kubernetes' quantities: `100m`, `0.5`, `2`, `350Mi`, `1e3`. Pure.

Source: the grammar of k8s.io/apimachinery, resource.Quantity.
"""

import re
from decimal import Decimal
from fractions import Fraction

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_MAX_DIGITS = 60


PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$"
"""The grammar as a regular expression, for schemas."""


_FORM = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d{1,3}))?", re.ASCII)
_PROBLEM = "must be a quantity such as 100m, 0.5, 2 or 350Mi"


def _split(text: str) -> tuple[Fraction, str, int | None]:
    """Value, suffix, and the exponent if there is one."""
    match = _FORM.fullmatch(text)
    if match is None or len(text) > _MAX_DIGITS:
        raise ValueError(f"{_PROBLEM}, not {text[:40]!r}")
    sign, digits, binary, decimal, exponent = match.groups()
    number = Fraction(Decimal(digits))
    if binary:
        number *= 1024 ** _BINARY[binary]
    else:
        number *= Fraction(10) ** (int(exponent) if exponent else _DECIMAL[decimal or ""])
    return (-number if sign == "-" else number), binary or decimal or "", int(exponent) if exponent else None


def parse_quantity(text: str) -> Fraction:
    """Parse the exact value: cores for `cpu`, bytes for `memory`.

    Raises:
        ValueError: not a quantity; the message has examples.
    """
    return _split(text)[0]


def canonical(text: str) -> str:
    """Kubernetes' canonical form: the largest suffix of the same family that leaves a whole number.

    Raises:
        ValueError: not a quantity.
    """
    value, suffix, exponent = _split(text)
    # As in Kubernetes, values are rounded away from zero to billionths.
    nanos = value * 10**9
    if nanos.denominator != 1:
        value = Fraction(
            -(-nanos.numerator // nanos.denominator) if nanos > 0 else nanos.numerator // nanos.denominator, 10**9
        )
    if value == 0:
        return "0"
    if suffix in _BINARY and value.denominator == 1 and abs(value) >= 1024:
        return _binary(value.numerator)
    return _decimal(value, exponent is not None)


def _binary(value: int) -> str:
    for name, power in reversed(_BINARY.items()):
        if value % 1024**power == 0:
            return f"{value // 1024**power}{name}"
    return str(value)


def _decimal(value: Fraction, exponents: bool) -> str:
    for name, power in reversed(_DECIMAL.items()):
        scaled = value / Fraction(10) ** power
        if scaled.denominator == 1:
            if exponents:
                return f"{scaled.numerator}e{power}" if power else str(scaled.numerator)
            return f"{scaled.numerator}{name}"
    raise AssertionError("a quantity was rounded to billionths")
