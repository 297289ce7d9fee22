"""What operators see of a worker, in Prometheus' text format. Built when asked for; the hot path only counts."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from activator.gateway import Gateway
from activator.stats import BUCKETS, Histogram


class GatewayCollector:
    """A collector for prometheus_client that reads the gateways' counts."""

    def __init__(self, gateways: Iterable[Gateway]) -> None:
        self._gateways = list(gateways)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        requests = CounterMetricFamily(
            "knoll_requests", "Requests that ended, by the status of their answer.", labels=["revision", "code"]
        )
        cold = CounterMetricFamily("knoll_cold_starts", "Requests that waited for a start.", labels=["revision"])
        latency = HistogramMetricFamily(
            "knoll_request_seconds", "From a request's arrival to the last byte of its answer.", labels=["revision"]
        )
        queued = HistogramMetricFamily(
            "knoll_queue_seconds", "Time in the queue, of requests that waited.", labels=["revision"]
        )
        in_flight = GaugeMetricFamily("knoll_requests_in_flight", "Requests in instances.", labels=["revision"])
        waiting = GaugeMetricFamily("knoll_requests_waiting", "Requests in the queue.", labels=["revision"])
        connections = GaugeMetricFamily("knoll_client_connections", "Open connections of clients.")
        connections.add_metric([], sum(len(gateway.connections) for gateway in self._gateways))
        for gateway in self._gateways:
            for name, revision in gateway.revisions.items():
                stats = revision.stats
                for code, count in stats.codes.items():
                    requests.add_metric([name, str(code)], count)
                cold.add_metric([name], stats.cold)
                latency.add_metric([name], *_histogram(stats.latency))
                queued.add_metric([name], *_histogram(stats.queued))
                in_flight.add_metric([name], revision.in_flight())
                waiting.add_metric([name], len(revision.breaker.queue))
        yield from (requests, cold, latency, queued, in_flight, waiting, connections)


def _histogram(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    total, buckets = 0, []
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets, histogram.total


def exposition(gateway: Gateway) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GatewayCollector([gateway]))
    return generate_latest(registry)
