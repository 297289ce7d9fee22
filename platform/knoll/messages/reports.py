"""What activators tell the autoscaler, over two channels that keep nothing (`keys.REPORTS`, `keys.POKES`). Pure."""

import math

import msgspec

_FINEST = 1e-4
"""Seconds up to which all requests are in the first bucket of `latency_bucket`."""
_PER_DOUBLING = 4


def latency_bucket(seconds: float) -> int:
    """The bucket of a time: 0 up to 0.1 ms, then four for each doubling."""
    return math.ceil(math.log2(seconds / _FINEST) * _PER_DOUBLING) if seconds > _FINEST else 0


def latency_bounds(bucket: int) -> tuple[float, float]:
    """The bucket's times: above the first, up to the second; seconds."""
    high = _FINEST * 2 ** (bucket / _PER_DOUBLING)
    return (_FINEST * 2 ** ((bucket - 1) / _PER_DOUBLING) if bucket else 0.0), high


class RevisionReport(msgspec.Struct, frozen=True):
    """One activator's view of one revision over one period."""

    revision: str
    """`namespace/name`."""
    concurrency: float
    """Time-weighted mean of the requests that were in flight or waiting."""
    requests: int
    """Requests that arrived in the period."""
    in_flight: int
    """In an instance at the period's end."""
    queued: int
    """Waiting for one at the period's end."""
    held: dict[str, int] = {}
    """Instance name to requests in it at the period's end, where there is more than one instance to choose from."""
    answers: int = 0
    """Requests that were answered in the period; those that became a tunnel (101) are none."""
    errors: int = 0
    """Of them, with a status of 500 to 599."""
    latency: dict[int, int] = {}
    """`latency_bucket` of the time from a request's arrival to its answer's last byte, to how many of `answers`."""


class Report(msgspec.Struct, frozen=True):
    """One activator's second. A revision is left out once it was reported with nothing at all."""

    activator: str
    """Id of the activator worker, as in the followers of the tables."""
    at: float
    """Epoch seconds of the period's end."""
    period: float
    """Seconds, > 0."""
    revisions: tuple[RevisionReport, ...]
    draining: dict[str, int] = {}
    """Instance name to requests in flight, for each endpoint in state `draining`; repeated until it is removed."""
    tunnels: dict[str, int] = {}
    """The same for upgraded connections (WebSockets), not among those requests; left out where there are none."""


class Poke(msgspec.Struct, frozen=True):
    """A request found no free instance: decide now, not at the next tick."""

    activator: str
    revision: str
    """`namespace/name`."""
    at: float
    """Epoch seconds."""
    waiting: int
    """Requests of that revision waiting at this activator, >= 1."""
