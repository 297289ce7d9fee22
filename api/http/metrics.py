"""The API's metrics, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ApiMetrics:
    """Metrics with a registry for each application, so that one process can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "knoll_api_requests", "Requests served", ["verb", "resource", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            "knoll_api_request_duration_seconds",
            "Time until the response was ready, without watches and logs",
            ["verb"],
            registry=self.registry,
        )
        self.watches = Gauge("knoll_api_watches", "Open watches", registry=self.registry)
        self.upload_bytes = Counter("knoll_api_upload_bytes", "Bytes of uploaded sources", registry=self.registry)

    def observe(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """Count one served request."""
        self._requests.labels(verb, resource, str(code)).inc()
        self._seconds.labels(verb).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
