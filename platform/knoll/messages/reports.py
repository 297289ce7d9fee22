"""What activators report to the autoscaler, over two Redis channels (`keys.REPORTS`, `keys.POKES`). Pure."""

import math

import msgspec

_FINEST = 1e-4
"""Upper bound, in seconds, of the first bucket of `latency_bucket`."""
_PER_DOUBLING = 4


def latency_bucket(seconds: float) -> int:
    """The bucket of a latency: 0 up to 0.1 ms, then four buckets for each doubling."""
    return math.ceil(math.log2(seconds / _FINEST) * _PER_DOUBLING) if seconds > _FINEST else 0


def latency_bounds(bucket: int) -> tuple[float, float]:
    """Exclusive lower and inclusive upper bound of a bucket, in seconds."""
    high = _FINEST * 2 ** (bucket / _PER_DOUBLING)
    return (_FINEST * 2 ** ((bucket - 1) / _PER_DOUBLING) if bucket else 0.0), high


class RevisionReport(msgspec.Struct, frozen=True):
    """One activator's view of one revision over one period."""

    revision: str
    """`namespace/name`."""
    concurrency: float
    """Time-weighted mean of the number of requests in flight or queued."""
    requests: int
    """Requests that arrived in the period."""
    in_flight: int
    """Requests in instances at the end of the period."""
    queued: int
    """Requests waiting for an instance at the end of the period."""
    held: dict[str, int] = {}
    """Instance name to its requests at the end of the period, if there are several instances to choose from."""
    answers: int = 0
    """Requests completed in the period, without upgraded ones (101)."""
    errors: int = 0
    """Those of them with a 5xx status."""
    latency: dict[int, int] = {}
    """Histogram of `answers`: `latency_bucket` of the time from arrival to the last byte, to number of requests."""


class Report(msgspec.Struct, frozen=True):
    """One activator's report of a period. A revision without any activity is omitted after one empty report."""

    activator: str
    """Id of the activator worker, as in the followers of the tables."""
    at: float
    """Epoch seconds of the end of the period."""
    period: float
    """Seconds, > 0."""
    revisions: tuple[RevisionReport, ...]
    draining: dict[str, int] = {}
    """Instance name to requests in flight, for each endpoint in state `draining`; repeated until it is removed."""
    tunnels: dict[str, int] = {}
    """The same for upgraded connections (WebSockets), which are not counted as requests; omitted if there are none."""


class Poke(msgspec.Struct, frozen=True):
    """A request had no free instance: the autoscaler decides immediately, not at the next tick."""

    activator: str
    revision: str
    """`namespace/name`."""
    at: float
    """Epoch seconds."""
    waiting: int
    """Requests of that revision waiting at this activator, >= 1."""
    node: str = ""
    """Name of the activator's node; empty on a single machine."""
