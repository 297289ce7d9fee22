"""Numbers in strings, such as values of annotations and ConfigMaps: without Python's own notations. Pure."""

import re

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?", re.ASCII)


def parse_number(text: str) -> float:
    """Parse a finite decimal number.

    Raises:
        ValueError: it is not one.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"must be a number, not {text[:60]!r}")
    return float(text)
