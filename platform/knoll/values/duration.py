"""Go's durations: `30s`, `1h30m`, `1.5h`, `100ms`. Pure.

Source: the grammar of Go's time.ParseDuration.
"""

import re
from fractions import Fraction

_UNITS = {
    "ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "µs": Fraction(1, 10**6), "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600),
}  # fmt: skip
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_MAX = Fraction(2**63 - 1, 10**9)
_MAX_LENGTH = 64


def parse_duration(text: str) -> Fraction:
    """Parse a duration into exact seconds.

    Raises:
        ValueError: not a duration; the message has an example.
    """
    problem = ValueError(f"must be a duration such as 30s or 1h30m, not {text[:40]!r}")
    if len(text) > _MAX_LENGTH:
        raise problem
    sign, body = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if body == "0":
        return Fraction(0)
    total, at = Fraction(0), 0
    while part := _PART.match(body, at):
        total += Fraction(part[1].rstrip(".") if part[1].endswith(".") else part[1]) * _UNITS[part[2]]
        at = part.end()
    if at == 0 or at != len(body) or total > _MAX:
        raise problem
    return sign * total


def format_duration(seconds: Fraction | int) -> str:
    """As Go prints it: `0s`, `6s`, `1h0m0s`, `100ms`."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if 0 < seconds < 1:
        unit, scale = next(
            (unit, scale)
            for unit, scale in (("ms", 10**3), ("µs", 10**6), ("ns", 10**9))
            if seconds * scale >= 1 or unit == "ns"
        )
        return f"{_plain(Fraction(seconds) * scale)}{unit}"
    minutes, rest = divmod(Fraction(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{_plain(rest)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _plain(number: Fraction) -> str:
    return f"{float(number):.9f}".rstrip("0").rstrip(".")
