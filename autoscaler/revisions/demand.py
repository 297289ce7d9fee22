"""What activators report of one Revision: its load over time, the requests that wait, and those in each instance."""

from autoscaler.decision.window import Load
from knoll.messages.reports import RevisionReport

POKE_SECONDS = 1.5
"""How long the waiting requests of a poke count; after that, reports include them."""
REPORT_SECONDS = 3.0
"""A report older than this is ignored: it is outdated."""


class Demand:
    """The demand for one Revision."""

    def __init__(self, window_seconds: float, now: float) -> None:
        """
        Args:
            window_seconds: the stable window, > 0.
            now: epoch seconds.
        """
        self._load = Load(window_seconds)
        self.window = self._load.window
        self.busy_at = now
        """When the last request was reported, or the Revision began to serve."""
        self._waiting: dict[str, tuple[float, int]] = {}
        """Activator to when it reported, and its requests without an instance."""
        self._in_flight: dict[str, tuple[float, dict[str, int]]] = {}
        """Activator to when it reported, and its requests in each instance."""

    def busy(self, at: float) -> None:
        """There were requests at a moment, epoch seconds."""
        self.busy_at = max(self.busy_at, at)

    def poke(self, activator: str, waiting: int, at: float) -> None:
        """Add a poke: an activator has requests and no instance."""
        self._waiting[activator] = (at, waiting)
        self.busy(at)

    def report(
        self, activator: str, row: RevisionReport, load: float, at: float, period: float, counted: float
    ) -> None:
        """Add a report.

        Args:
            load: mean of the scaled metric in the period.
            at: when it arrived, epoch seconds.
            period: seconds that it covers.
            counted: end of that period, epoch seconds.
        """
        self._load.report(activator, counted, period, load)
        self._in_flight[activator] = (at, row.held)
        self._waiting.pop(activator, None)
        if row.queued:
            self._waiting[activator] = (at, row.queued)
        if row.in_flight or row.queued or row.requests:
            self.busy(at)

    def waiting(self, now: float) -> int:
        """Return the requests that wait for an instance."""
        return sum(count for at, count in self._waiting.values() if now - at <= POKE_SECONDS)

    def in_flight(self, instance: str, now: float) -> int:
        """Return the requests in an instance, according to the last reports."""
        return sum(counts.get(instance, 0) for at, counts in self._in_flight.values() if now - at <= REPORT_SECONDS)
