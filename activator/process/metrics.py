"""What operators see, in Prometheus' text format. Built when asked for; the hot path only counts.

A worker says its counts as plain values (`plain`), so that the parent of several workers can add them up (`total`).
"""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from activator.backend.stats import BUCKETS, Histogram
from activator.routing.proxy_state import ProxyState

Counts = dict[str, Any]
"""JSON: `connections` and, by revision, `codes`, `cold`, `latency`, `queued`, `in_flight`, `waiting`."""

_NUMBERS = ("cold", "in_flight", "waiting")


def plain(proxy: ProxyState) -> Counts:
    """The counts of one worker."""
    revisions = {
        name: {
            "codes": {str(code): count for code, count in revision.stats.codes.items()},
            "cold": revision.stats.cold,
            "in_flight": revision.in_flight(),
            "waiting": len(revision.breaker.queue),
            "latency": _values(revision.stats.latency),
            "queued": _values(revision.stats.queued),
        }
        for name, revision in proxy.revisions.items()
    }
    return {"connections": len(proxy.connections), "revisions": revisions}


def _values(histogram: Histogram) -> list[float]:
    return [histogram.total, *histogram.counts]


def total(workers: Iterable[Counts]) -> Counts:
    """The sum of what several workers said."""
    connections, revisions = 0, dict[str, Any]()
    for said in workers:
        connections += said["connections"]
        for name, one in said["revisions"].items():
            known = revisions.get(name)
            revisions[name] = one if known is None else _add(known, one)
    return {"connections": connections, "revisions": revisions}


def ended(said: Counts) -> Counts:
    """The counts of a worker that is gone: nothing is open or in flight there any more."""
    revisions = {name: {**one, "in_flight": 0, "waiting": 0} for name, one in said["revisions"].items()}
    return {"connections": 0, "revisions": revisions}


def _add(one: Counts, other: Counts) -> Counts:
    codes = {code: one["codes"].get(code, 0) + other["codes"].get(code, 0) for code in one["codes"] | other["codes"]}
    added: Counts = {"codes": codes, **{key: one[key] + other[key] for key in _NUMBERS}}
    for key in ("latency", "queued"):
        added[key] = [a + b for a, b in zip(one[key], other[key], strict=True)]
    return added


class _Collector:
    def __init__(self, values: Counts) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        label = ["revision"]
        requests = CounterMetricFamily(
            "knoll_requests", "Requests that ended, by the status of their answer.", labels=["revision", "code"]
        )
        cold = CounterMetricFamily("knoll_cold_starts", "Requests that waited for a start.", labels=label)
        latency = HistogramMetricFamily(
            "knoll_request_seconds", "From a request's arrival to the last byte of its answer.", labels=label
        )
        queued = HistogramMetricFamily(
            "knoll_queue_seconds", "Time in the queue, of requests that waited.", labels=label
        )
        in_flight = GaugeMetricFamily("knoll_requests_in_flight", "Requests in instances.", labels=label)
        waiting = GaugeMetricFamily("knoll_requests_waiting", "Requests in the queue.", labels=label)
        connections = GaugeMetricFamily("knoll_client_connections", "Open connections of clients.")
        connections.add_metric([], self._values["connections"])
        for name, one in self._values["revisions"].items():
            for code, count in one["codes"].items():
                requests.add_metric([name, code], count)
            cold.add_metric([name], one["cold"])
            in_flight.add_metric([name], one["in_flight"])
            waiting.add_metric([name], one["waiting"])
            for family, key in ((latency, "latency"), (queued, "queued")):
                seconds, *counts = one[key]
                family.add_metric([name], _buckets(counts), seconds)
        yield from (requests, cold, latency, queued, in_flight, waiting, connections)


def _buckets(counts: list[float]) -> list[tuple[str, float]]:
    below, buckets = 0.0, []
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], counts, strict=True):
        below += count
        buckets.append((bound, below))
    return buckets


def exposition(values: Counts) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(values))
    return generate_latest(registry)
