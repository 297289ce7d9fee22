"""Load over time: one-second buckets and their mean over a window; reports of activators to buckets. Pure."""

import math
from array import array

BUCKET_SECONDS = 1.0
_PRECISION, _LEAST_SMOOTHING = 0.9999, 0.2
KEPT_SECONDS = 4
"""How late a report may arrive, and the longest period that one report covers."""
_DIGITS = 6
"""Rounding: a sum of floats slightly above a target must not ask for one more instance."""


class Window:
    """Sums of one number in buckets of a second, over the last `seconds`.

    Source: Knative Serving, pkg/autoscaler/aggregation (TimedFloat64Buckets).
    """

    def __init__(self, seconds: float) -> None:
        """
        Args:
            seconds: the longest period of a mean, > 0.
        """
        self.seconds = seconds
        """May be changed; a longer window fills up from then on."""
        self._sums = array("d")
        """One bucket a second; the last one is the newest in which a value was recorded."""
        self._begins = 0
        """The second of the first bucket."""
        self._first: float | None = None

    def record(self, at: float, value: float) -> None:
        """Add to the bucket of a moment; values of one second are added up. They may arrive a little late."""
        if self._first is None or self._is_empty(at):
            self._first = at
        second, kept = math.floor(at / BUCKET_SECONDS), math.ceil(self.seconds) + 1
        if not self._sums or second - self._newest >= kept:
            self._sums, self._begins = array("d", (value,)), second
            return
        if second < self._begins:
            if self._newest - second >= kept:
                return  # older than any window
            self._sums = array("d", bytes(8 * (self._begins - second))) + self._sums
            self._begins = second
        elif second > self._newest:
            self._sums.frombytes(bytes(8 * (second - self._newest)))
            old = len(self._sums) - kept
            if old > 0:
                del self._sums[:old]
                self._begins += old
        self._sums[second - self._begins] += value

    def mean(self, now: float, seconds: float, *, exponential: bool = False) -> float:
        """Mean over the last `seconds`, or over the time since the first record where that is shorter.

        The second of `now` counts only once a value was recorded in it: reports arrive when a second is over.

        Args:
            exponential: newer buckets weigh more, as Knative's WeightedAverage does: each second further back counts
                for (1 - k) of the next, with k so that the window holds 99.99 % of the weight, and at least 0.2.
        """
        if self._first is None:
            return 0.0
        last = self._newest
        if last < self._begins or now / BUCKET_SECONDS - last > self.seconds + 1:
            self._sums = array("d")
            self._first = None
            return 0.0
        newest = math.floor(now / BUCKET_SECONDS)
        if last == newest - 1:
            newest = last  # not reported yet
        length = max(1, min(math.ceil(seconds), newest - math.floor(self._first) + 1))
        inside = self._sums[max(0, newest - length + 1 - self._begins) : max(0, newest + 1 - self._begins)]
        if not exponential:
            return round(sum(inside) / length, _DIGITS)
        smoothing = max(1 - (1 - _PRECISION) ** (1 / max(1, math.ceil(seconds))), _LEAST_SMOOTHING)
        inside.reverse()
        age = max(0, newest - last)
        weighted = (value * smoothing * (1 - smoothing) ** (age + back) for back, value in enumerate(inside))
        return round(math.fsum(weighted), _DIGITS)

    @property
    def _newest(self) -> int:
        return self._begins + len(self._sums) - 1

    def _is_empty(self, now: float) -> bool:
        return not self._sums or now / BUCKET_SECONDS - self._newest > self.seconds + 1


class Load:
    """Reports of several activators, as a load in each second.

    Reports arrive early and late, their periods are not exactly a second, and some are lost or arrive twice. In each
    second an activator's part is the time-weighted mean of what it reported of that second, over any number of
    reports. So no mean over a window exceeds the sum of the largest means that the activators reported.
    """

    def __init__(self, seconds: float) -> None:
        """Args: seconds: as `Window`."""
        self.window = Window(seconds)
        self._recent: dict[int, dict[str, tuple[float, float]]] = {}
        """By second and activator, the area and the time that it reported of that second; for the last seconds."""
        self._newest = 0

    def report(self, activator: str, at: float, period: float, mean: float) -> None:
        """Add a report.

        Args:
            activator: id of the activator that counted.
            at: end of the reported period, epoch seconds.
            period: seconds, > 0.
            mean: time-weighted load in that period.
        """
        last = math.floor(at / BUCKET_SECONDS)
        self._newest = max(self._newest, last)
        oldest = self._newest - KEPT_SECONDS
        if last <= oldest:
            return
        first = max(min(last, math.floor((at - period) / BUCKET_SECONDS) + 1), oldest + 1)
        for second in range(first, last + 1):
            self._weigh(activator, second, period / (last - first + 1), mean)
        for second in [second for second in self._recent if second <= oldest]:
            del self._recent[second]

    def _weigh(self, activator: str, second: int, time: float, mean: float) -> None:
        parts = self._recent.setdefault(second, {})
        area, before = parts.get(activator, (0.0, 0.0))
        parts[activator] = (area + mean * time, before + time)
        old = area / before if before else 0.0
        self.window.record(second * BUCKET_SECONDS, (area + mean * time) / (before + time) - old)
