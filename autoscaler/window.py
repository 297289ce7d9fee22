"""Load over time: one-second buckets and their mean over a window. Pure: time comes in."""

import math
from collections import deque

BUCKET_SECONDS = 1.0
_PRECISION, _LEAST_SMOOTHING = 0.9999, 0.2
_DIGITS = 6
"""A sum of floats a hair above a target must not want one instance more."""


class Window:
    """Sums of one number in buckets of a second, for the last so many seconds.

    Source: Knative Serving, pkg/autoscaler/aggregation (TimedFloat64Buckets).
    """

    def __init__(self, seconds: float) -> None:
        """
        Args:
            seconds: how far back a mean is ever asked for, > 0.
        """
        self.seconds = seconds
        """May be changed; of a longer time only what is still there is known."""
        self._buckets: deque[tuple[int, float]] = deque()
        self._first: float | None = None

    def record(self, at: float, value: float) -> None:
        """Add to the bucket of a moment; several reporters of one second add up. Moments may come a little late."""
        if self._first is None or self._is_empty(at):
            self._first = at
        second = math.floor(at / BUCKET_SECONDS)
        for index in range(len(self._buckets) - 1, -1, -1):
            bucket, held = self._buckets[index]
            if bucket == second:
                self._buckets[index] = (bucket, held + value)
                return
            if bucket < second:
                self._buckets.insert(index + 1, (second, value))
                break
        else:
            self._buckets.appendleft((second, value))
        while self._buckets and self._buckets[0][0] < second - self.seconds:
            self._buckets.popleft()

    def mean(self, now: float, seconds: float, *, exponential: bool = False) -> float:
        """Mean over the last `seconds`, or over the time since the first record where that is shorter.

        The second of `now` counts only once something was recorded in it: reports come when a second is over.

        Args:
            exponential: newer buckets weigh more, as Knative's WeightedAverage does: each second further back counts
                for (1 - k) of the next, with k so that the window holds 99.99 % of the weight, and at least 0.2.
        """
        if self._first is None:
            return 0.0
        if self._is_empty(now):
            self._buckets.clear()
            self._first = None
            return 0.0
        newest = math.floor(now / BUCKET_SECONDS)
        if self._buckets[-1][0] == newest - 1:
            newest -= 1  # nobody has reported this second yet
        length = max(1, min(math.ceil(seconds), newest - math.floor(self._first) + 1))
        inside = []
        for bucket, value in reversed(self._buckets):
            age = newest - bucket
            if age >= length:
                break
            if age >= 0:
                inside.append((age, value))
        if not exponential:
            return round(sum(value for _, value in inside) / length, _DIGITS)
        smoothing = max(1 - (1 - _PRECISION) ** (1 / max(1, math.ceil(seconds))), _LEAST_SMOOTHING)
        return round(math.fsum(value * smoothing * (1 - smoothing) ** age for age, value in inside), _DIGITS)

    def _is_empty(self, now: float) -> bool:
        return not self._buckets or now / BUCKET_SECONDS - self._buckets[-1][0] > self.seconds + 1
