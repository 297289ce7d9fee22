"""Metrics in Prometheus' text format, built on request; requests only increment counts.

A worker returns its counts as plain values (`worker_counts`), which the parent of several workers adds up (`total`).
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


def worker_counts(proxy: ProxyState) -> Counts:
    """Return the counts of one worker."""
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
    """Return the sum of the counts of several workers."""
    connections, revisions = 0, dict[str, Any]()
    for worker in workers:
        connections += worker["connections"]
        for name, counts in worker["revisions"].items():
            previous = revisions.get(name)
            revisions[name] = counts if previous is None else _add(previous, counts)
    return {"connections": connections, "revisions": revisions}


def ended(counts: Counts) -> Counts:
    """Return the counts of an ended worker, in which nothing is open or in flight any more."""
    revisions = {name: {**each, "in_flight": 0, "waiting": 0} for name, each in counts["revisions"].items()}
    return {"connections": 0, "revisions": revisions}


def _add(left: Counts, right: Counts) -> Counts:
    codes = {code: left["codes"].get(code, 0) + right["codes"].get(code, 0) for code in left["codes"] | right["codes"]}
    added: Counts = {"codes": codes, **{key: left[key] + right[key] for key in _NUMBERS}}
    for key in ("latency", "queued"):
        added[key] = [a + b for a, b in zip(left[key], right[key], strict=True)]
    return added


class _ActivatorCollector:
    def __init__(self, values: Counts) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        label = ["revision"]
        requests = CounterMetricFamily(
            "knoll_requests", "Ended requests, by the status of their response.", labels=["revision", "code"]
        )
        cold = CounterMetricFamily("knoll_cold_starts", "Requests that waited for an instance to start.", labels=label)
        latency = HistogramMetricFamily(
            "knoll_request_seconds", "Time from a request's arrival to the last byte of its response.", labels=label
        )
        queued = HistogramMetricFamily(
            "knoll_queue_seconds", "Time in the queue, of requests that were queued.", labels=label
        )
        in_flight = GaugeMetricFamily("knoll_requests_in_flight", "Requests in instances.", labels=label)
        waiting = GaugeMetricFamily("knoll_requests_waiting", "Requests in the queue.", labels=label)
        connections = GaugeMetricFamily("knoll_client_connections", "Open client connections.")
        connections.add_metric([], self._values["connections"])
        for name, counts in self._values["revisions"].items():
            for code, count in counts["codes"].items():
                requests.add_metric([name, code], count)
            cold.add_metric([name], counts["cold"])
            in_flight.add_metric([name], counts["in_flight"])
            waiting.add_metric([name], counts["waiting"])
            for family, key in ((latency, "latency"), (queued, "queued")):
                seconds, *bucket_counts = counts[key]
                family.add_metric([name], _buckets(bucket_counts), seconds)
        yield from (requests, cold, latency, queued, in_flight, waiting, connections)


def _buckets(counts: list[float]) -> list[tuple[str, float]]:
    below, buckets = 0.0, []
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], counts, strict=True):
        below += count
        buckets.append((bound, below))
    return buckets


def exposition(values: Counts) -> bytes:
    """Return the text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ActivatorCollector(values))
    return generate_latest(registry)
