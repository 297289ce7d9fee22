"""The controllers' metrics, in the API's registry."""

from prometheus_client import CollectorRegistry, Counter


class ControllerMetrics:
    """Counts what the controllers do."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Args: registry: of the process; without one, the metrics are not served."""
        self._reconciles = Counter(
            "knoll_controller_reconciles",
            "Objects reconciled, by plural name and group of their kind",
            ["kind"],
            registry=registry,
        )

    def reconciled(self, resource: str) -> None:
        """Count one reconciliation."""
        self._reconciles.labels(resource).inc()
