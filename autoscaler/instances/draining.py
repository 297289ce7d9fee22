"""Waits until an instance may be stopped: no activator sends requests to it, and none is in flight there."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.reports import Report
from knoll.tables.protocol import Table
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

ACK_SECONDS = 30.0
"""How long a live activator may take to acknowledge that an instance drains."""
SILENT_SECONDS = 5.0
"""An activator that did not mention a draining instance in five reports never sent it a request."""
POLL_SECONDS = 0.05
RECOUNT_SECONDS = 1.0
"""How long to wait for a report before the requests are counted again: an activator may have ended."""
DRAIN_QUIET_SECONDS = 30.0
"""As long as Knative's queue-proxy delays SIGTERM after the last new request. WebSockets that are about to close do so
in this time; the app closes the others, because it knows what to send to its peers."""


class InFlight(NamedTuple):
    """What one activator has in flight in an instance."""

    reported_at: float
    """Epoch seconds."""
    requests: int
    tunnels: int
    """Upgraded connections."""


NOT_REPORTED = InFlight(0.0, 0, 0)


class Draining:
    """All instances that are draining, and what activators report of them."""

    def __init__(
        self,
        endpoints: Table[RevisionEndpoints],
        publish: Callable[[str], Awaitable[int]],
        clock: Callable[[], float],
        quiet_seconds: float = DRAIN_QUIET_SECONDS,
    ) -> None:
        """
        Args:
            publish: publishes the endpoints of a Revision, `namespace/name`, however long that takes; returns their
                version.
            quiet_seconds: how long to wait for upgraded connections, at least 0; never more than half the grace.
        """
        self._endpoints, self._publish, self._clock, self._quiet_seconds = endpoints, publish, clock, quiet_seconds
        self._in_flight: dict[str, dict[str, InFlight]] = {}
        """Draining instance to activator to its requests there."""
        self._reports, self._reported = 0, asyncio.Event()
        """How many reports have mentioned a draining instance; each one sets the event for a moment."""
        self._followers: tuple[float, asyncio.Future[dict[str, int]] | None] = (0.0, None)
        """When `_live_activators` last queried Redis, and the result or the pending query."""
        self.listening_since = float("inf")
        """Epoch seconds since which no report was missed; inf while reports may be missed."""

    def record(self, report: Report, now: float) -> None:
        """Record what an activator reports of draining instances."""
        for instance, requests in report.draining.items():
            if instance in self._in_flight:
                tunnels = report.tunnels.get(instance, 0)
                self._in_flight[instance][report.activator] = InFlight(now, requests, tunnels)
                self._reports += 1
                self._reported.set()
        self._reported.clear()

    async def wait_until_drained(self, instance: str, revision: str, grace_seconds: float) -> bool:
        """Wait for the acknowledgement of every live activator, and then for the requests in flight.

        Requests may take all of the grace period. Upgraded connections have a quiet time; then the app gets SIGTERM.

        Returns:
            Whether nothing is left in the instance.
        """
        deadline = self._clock() + grace_seconds
        self._in_flight[instance] = {}
        try:
            version = await self._publish(revision)
            await self._acknowledged(version, min(deadline, self._clock() + ACK_SECONDS))
            acknowledged_at = self._clock()
            quiet_until = acknowledged_at + min(self._quiet_seconds, grace_seconds / 2)
            while self._clock() < deadline:
                reports = self._reports
                requests, tunnels = await self._count(instance, acknowledged_at)
                if not requests and not tunnels:
                    return True
                if not requests and self._clock() >= quiet_until:
                    log.info("instance stopped with upgraded connections open", instance=instance, open=tunnels)
                    return False
                if reports == self._reports:
                    await self._next_report(quiet_until if self._clock() < quiet_until else deadline)
            log.warning("instance stopped with requests in flight: grace period over", instance=instance)
            return False
        finally:
            self._in_flight.pop(instance, None)

    async def _next_report(self, until: float) -> None:
        """Wait for a report about any draining instance, at most RECOUNT_SECONDS. Args: until: epoch seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(RECOUNT_SECONDS, max(POLL_SECONDS, until - self._clock()))):
                await self._reported.wait()

    async def _acknowledged(self, version: int, deadline: float) -> None:
        while self._clock() < deadline:
            activators = await self._live_activators()
            if activators is not None and all(acknowledged >= version for acknowledged in activators.values()):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _count(self, instance: str, acknowledged_at: float) -> tuple[int, int]:
        """Count requests and upgraded connections; an activator that has not reported yet counts as a request.

        An activator repeats its count while it knows the instance. One that does not mention it for a while never did.
        """
        activators = await self._live_activators()
        if activators is None:
            return 1, 0
        reports = [self._in_flight[instance].get(activator, NOT_REPORTED) for activator in activators]
        silence_is_none = self._clock() - max(acknowledged_at, self.listening_since) >= SILENT_SECONDS
        current = [report for report in reports if report.reported_at >= acknowledged_at]
        missing = 0 if silence_is_none else len(reports) - len(current)
        return missing + sum(report.requests for report in current), sum(report.tunnels for report in current)

    async def _live_activators(self) -> dict[str, int] | None:
        """Return which activators follow the endpoints, up to which version; None while Redis is unavailable.

        However many instances drain, Redis is queried at most once in `POLL_SECONDS`.
        """
        asked_at, pending = self._followers
        if pending is None or self._clock() - asked_at >= POLL_SECONDS:
            pending = asyncio.ensure_future(self._endpoints.followers())
            # Retrieves the exception also when every waiter was cancelled.
            pending.add_done_callback(lambda future: future.cancelled() or future.exception())
            self._followers = (self._clock(), pending)
        try:
            return await asyncio.shield(pending)
        except StoreUnavailableError:
            return None
