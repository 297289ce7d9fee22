"""Counts of a revision's requests: for the autoscaler each second, and for metrics. Pure."""

from bisect import bisect_left

from knoll.messages.reports import RevisionReport, latency_bucket

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the histograms' buckets, seconds."""


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
        "_answers", "_area", "_buckets", "_errors", "_last", "_reported", "active", "arrived", "codes", "cold",
        "latency", "queued",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.active = 0
        """Requests in flight or queued."""
        self.arrived = 0
        """Since the last report."""
        self.codes: dict[int, int] = {}
        """Ended requests by status, since the process started."""
        self.latency = Histogram()
        """From arrival to the last byte."""
        self.queued = Histogram()
        """Of queued requests: from arrival to the slot."""
        self.cold = 0
        """Requests that waited for an instance to start, since the process started."""
        self._answers = self._errors = 0
        self._buckets: dict[int, int] = {}
        self._area = 0.0
        self._last = now
        self._reported = False

    @property
    def quiet(self) -> bool:
        """Whether a report would be None."""
        return not (self.active or self.arrived or self._answers or self._reported)

    def enter(self, now: float) -> None:
        self._area += self.active * (now - self._last)
        self._last = now
        self.active += 1
        self.arrived += 1

    def leave(self, now: float, began: float, status: int) -> None:
        """Args: began: when it entered. status: 0 if there was no response."""
        self._area += self.active * (now - self._last)
        self._last = now
        self.active -= 1
        self.codes[status] = self.codes.get(status, 0) + 1
        seconds = now - began
        self.latency.counts[bisect_left(BUCKETS, seconds)] += 1
        self.latency.total += seconds
        if status >= 200:
            self._answers += 1
            self._errors += 500 <= status < 600
            bucket = latency_bucket(seconds)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def report(
        self, revision: str, now: float, period: float, in_flight: int, queued: int, held: dict[str, int] | None = None
    ) -> RevisionReport | None:
        """Return the counts since the last report, `period` seconds ago; None if both reports would be empty."""
        area = self._area + self.active * (now - self._last)
        requests = self.arrived
        self._area, self._last, self.arrived = 0.0, now, 0
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
