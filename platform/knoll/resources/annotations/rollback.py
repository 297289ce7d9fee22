"""When a new Revision is rolled back automatically: the annotation `knoll.dev/rollback-on`. Pure.

It holds criteria and limits, separated by commas, as in `error-rate>5%, p95>2x, requests>=20, window=60s`:

- `error-rate>N%`: the new Revision's share of 5xx responses is more than N percentage points above the old one's;
- `pNN>Fx`: its NN-th percentile of request latency is more than F times the old one's;
- `requests>=N`: Revisions with fewer than N requests are not compared (default 20);
- `window=D`: how long requests count, and how long after the last change of traffic a rollback is possible (60s).
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
    """How much worse a new Revision has to be for a rollback."""

    error_points: float | None = None
    """Limit in percentage points above the old Revision's error rate; None: errors are not compared."""
    latency: tuple[tuple[int, float], ...] = ()
    """Pairs of a percentile and the limit, as a factor of the old Revision's latency."""
    requests: int = 20
    """Minimum number of requests for a comparison."""
    window_seconds: float = 60.0


def parse_policy(text: str) -> RollbackPolicy:
    """Parse the annotation.

    Raises:
        ValueError: it is invalid; the message names the expected form.
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
            raise ValueError(f'"{word}" is not one of {_FORMS}')
    if errors is None and not latency:
        raise ValueError("must contain error-rate>N% or pNN>Fx")
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
