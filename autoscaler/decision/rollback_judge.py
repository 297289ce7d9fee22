"""Outcomes of a Revision's requests over a window, and whether a new Revision does worse than the last one. Pure.

The Route acts on the verdict: `api/controllers/route/rollback.py`.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from knoll.messages.reports import latency_bounds
from knoll.resources.annotations.rollback import RollbackPolicy


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the requests of a period ended."""

    answers: int = 0
    errors: int = 0
    """Responses with a status of 500 to 599."""
    latency: Mapping[int, int] = field(default_factory=dict)
    """Bucket, as in `reports.latency_bucket`, to responses."""

    @property
    def error_percent(self) -> float:
        return 100.0 * self.errors / self.answers if self.answers else 0.0

    def percentile(self, percent: int) -> float:
        """Return the seconds within which that share of requests ended, interpolated within a bucket; 0 without any."""
        rank, below = sum(self.latency.values()) * percent / 100, 0
        for bucket in sorted(self.latency):
            count = self.latency[bucket]
            if below + count >= rank:
                low, high = latency_bounds(bucket)
                return low + (high - low) * (rank - below) / count
            below += count
        return 0.0


class Outcomes:
    """Outcomes of the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._rows: deque[tuple[float, Outcome]] = deque()

    def record(self, at: float, outcome: Outcome) -> None:
        """Add the outcome of the period since the last record; `at` never decreases."""
        if outcome.answers:
            self._rows.append((at, outcome))
        while self._rows and at - self._rows[0][0] > self._seconds:
            self._rows.popleft()

    def over(self, now: float, seconds: float) -> Outcome:
        """Return the sum over the last seconds."""
        answers = errors = 0
        latency: dict[int, int] = {}
        for at, row in self._rows:
            if now - at <= seconds:
                answers, errors = answers + row.answers, errors + row.errors
                for bucket, count in row.latency.items():
                    latency[bucket] = latency.get(bucket, 0) + count
        return Outcome(answers, errors, latency)


def evaluate(policy: RollbackPolicy, new: Outcome, old: Outcome, name: str) -> str:
    """Return what is worse about a new Revision, with both figures; empty when nothing is, or there is too little data.

    With too few responses of the old Revision, it counts as free of errors and latency is not compared.

    Args:
        name: of the old Revision.
    """
    if new.answers < policy.requests:
        return ""
    comparable = old.answers >= policy.requests
    baseline = old.error_percent if comparable else 0.0
    if policy.error_points is not None and new.error_percent > baseline + policy.error_points:
        against = f"{baseline:.1f} % of {old.answers}" if comparable else f"too few ({old.answers}) to compare"
        return (
            f"{new.error_percent:.1f} % of {new.answers} requests failed, compared with {against} of {name}; "
            f"limit: +{policy.error_points:g} percentage points"
        )
    for percent, factor in policy.latency if comparable else ():
        slow, base = new.percentile(percent), old.percentile(percent)
        if base > 0 and slow > base * factor:
            return (
                f"p{percent} is {slow * 1000:.0f} ms over {new.answers} requests, compared with {base * 1000:.0f} ms "
                f"over {old.answers} of {name}; limit: factor {factor:g}"
            )
    return ""
