"""Counts of a revision's requests: for the autoscaler each second, and for metrics. Pure."""

import math
from bisect import bisect_left
from collections import defaultdict

from knoll.messages.reports import RevisionReport, latency_bounds, latency_bucket

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the histograms' buckets, seconds."""

_BOUNDS = sorted({*BUCKETS, *(latency_bounds(bucket)[1] for bucket in range(latency_bucket(3600.0)))})
"""Upper bounds of cells, each within one bucket of the histogram and one of the report: a request is counted once."""
_REPORT_BUCKETS = [latency_bucket(bound * 0.9999) for bound in _BOUNDS] + [latency_bucket(3600.0)]
"""The report's bucket of each cell; the factor keeps a bound in its bucket despite rounding."""


class Histogram:
    """Counts by duration."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Stats:
    """Counts of one revision in one process. Times are seconds on a monotonic clock.

    Twelve attributes and more: they are counters, one for each figure of a report.
    """

    __slots__ = (
        "_answers", "_buckets", "_cells", "_errors", "_latency", "_reported", "_seconds", "active", "area", "arrived",
        "codes", "cold", "queued", "since",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.active = 0
        """Requests in flight or queued."""
        self.arrived = 0
        """Since the last report."""
        self.codes: dict[int, int] = defaultdict(int)
        """Ended requests by status, since the process started."""
        self._latency = Histogram()
        self.queued = Histogram()
        """Of queued requests: from arrival to the slot."""
        self.cold = 0
        """Requests that waited for an instance to start, since the process started."""
        self._answers = self._errors = 0
        self._buckets: dict[int, int] = {}
        self._cells = [0] * (len(_BOUNDS) + 1)
        """Responses by cell that are not yet in `_buckets` and the histogram; `_seconds` has their total duration."""
        self._seconds = 0.0
        self.area = 0.0
        """Request seconds since the last report, less those of requests that are active now."""
        self.since = now
        """Time of the last report."""
        self._reported = False

    @property
    def quiet(self) -> bool:
        """Whether a report would be None."""
        return not (self.active or self.arrived or self._answers or self._reported)

    @property
    def latency(self) -> Histogram:
        """From arrival to the last byte."""
        self._spread_cells()
        return self._latency

    def enter(self, now: float) -> None:
        """Count a request that arrives; `Exchange.begin` does the same inline."""
        self.area -= now - self.since
        self.active += 1
        self.arrived += 1

    def leave(self, now: float, began: float, status: int) -> None:
        """Args: began: when it entered. status: 0 if there was no response."""
        self.area += now - self.since
        self.active -= 1
        self.codes[status] += 1
        seconds = now - began
        if status < 200:
            self._latency.add(seconds)
            return
        self._answers += 1
        if 500 <= status < 600:
            self._errors += 1
        self._cells[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def _spread_cells(self) -> None:
        """Move the counts of the cells to the histogram and the report."""
        if not self._seconds and not any(self._cells):
            return
        for cell, count in enumerate(self._cells):
            if count:
                bound = _BOUNDS[cell] if cell < len(_BOUNDS) else math.inf
                self._latency.counts[bisect_left(BUCKETS, bound)] += count
                bucket = _REPORT_BUCKETS[cell]
                self._buckets[bucket] = self._buckets.get(bucket, 0) + count
                self._cells[cell] = 0
        self._latency.total += self._seconds
        self._seconds = 0.0

    def report(
        self, revision: str, now: float, period: float, in_flight: int, queued: int, held: dict[str, int] | None = None
    ) -> RevisionReport | None:
        """Return the counts since the last report, `period` seconds ago; None if both reports would be empty."""
        self._spread_cells()
        area = max(0.0, self.area + self.active * (now - self.since))  # sums of floats may be a little below
        requests = self.arrived
        self.area, self.since, self.arrived = 0.0, now, 0
        answers, errors, buckets = self._answers, self._errors, self._buckets
        self._answers, self._errors, self._buckets = 0, 0, {}
        active = bool(area or requests or self.active or answers)
        if not active and not self._reported:
            return None
        self._reported = active
        return RevisionReport(
            revision=revision,
            concurrency=area / max(period, 1e-9),
            requests=requests,
            in_flight=in_flight,
            queued=queued,
            held=held or {},
            answers=answers,
            errors=errors,
            latency=buckets,
        )
