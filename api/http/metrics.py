"""The API's own metrics, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One registry for each application, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "knoll_api_requests", "Requests answered", ["verb", "resource", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            "knoll_api_request_duration_seconds",
            "Time until the answer was ready, watches and logs aside",
            ["verb"],
            registry=self.registry,
        )
        self.watches = Gauge("knoll_api_watches", "Watches that are open", registry=self.registry)
        self.upload_bytes = Counter("knoll_api_upload_bytes", "Bytes of sources taken in", registry=self.registry)

    def observe(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(verb, resource, str(code)).inc()
        self._seconds.labels(verb).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
