"""When a new Revision is rolled back by itself: what the annotation `knoll.dev/rollback-on` says. Pure.

It holds conditions and bounds, parted by commas, as in `error-rate>5%, p95>2x, requests>=20, window=60s`:

- `error-rate>N%`: the new Revision's share of answers 500 to 599 is more than N points above the old one's;
- `pNN>Fx`: its NN-th percentile of time per request is more than F times the old one's;
- `requests>=N`: nothing is judged by fewer answers than N (20 unless given);
- `window=D`: the answers of so long count, and traffic can go back until so long after the last of it moved (60s).
"""

import re
from dataclasses import dataclass

from knoll.values.duration import parse_duration

_ERRORS = re.compile(r"error-rate>(\d+(?:\.\d+)?)%")
_LATENCY = re.compile(r"p(\d{1,2})>(\d+(?:\.\d+)?)x")
_REQUESTS = re.compile(r"requests>=([1-9]\d{0,8})")
_FORMS = "error-rate>N%, pNN>Fx, requests>=N or window=D, as in error-rate>5%, p95>2x, requests>=20, window=60s"
LONGEST, SHORTEST = 3600, 5


@dataclass(frozen=True, slots=True)
class RollbackPolicy:
    """What is worse enough to go back."""

    error_points: float | None = None
    """Percentage points of errors more than the old Revision's; None: errors do not count."""
    latency: tuple[tuple[int, float], ...] = ()
    """(percentile, factor over the old Revision's)."""
    requests: int = 20
    """The fewest answers that are judged by."""
    window_seconds: float = 60.0


def parse_policy(text: str) -> RollbackPolicy:
    """Read the annotation.

    Raises:
        ValueError: it cannot be read; says what and how it should be.
    """
    errors: float | None = None
    latency: dict[int, float] = {}
    bounds = RollbackPolicy()
    requests, window = bounds.requests, bounds.window_seconds
    for word in ("".join(part.split()) for part in text.split(",")):
        if match := _ERRORS.fullmatch(word):
            errors = _within(float(match[1]), 0, 100, word)
        elif match := _LATENCY.fullmatch(word):
            latency[int(_within(int(match[1]), 1, 99, word))] = _within(float(match[2]), 1, 1000, word)
        elif match := _REQUESTS.fullmatch(word):
            requests = int(match[1])
        elif word.startswith("window="):
            window = _within(_duration(word), SHORTEST, LONGEST, word)
        else:
            raise ValueError(f'"{word}" is none of {_FORMS}')
    if errors is None and not latency:
        raise ValueError("it says nothing to go back on: error-rate>N% or pNN>Fx")
    return RollbackPolicy(errors, tuple(sorted(latency.items())), requests, window)


def _duration(word: str) -> float:
    try:
        return float(parse_duration(word.removeprefix("window=")))
    except ValueError as problem:
        raise ValueError(f'"{word}" is not a duration such as window=60s: {problem}') from None


def _within(value: float, low: float, high: float, word: str) -> float:
    if not low <= value <= high:
        raise ValueError(f'"{word}" is not between {low:g} and {high:g}')
    return value
