"""A revision as the activator uses it: its endpoints, its queue and its counts."""

import random
from collections.abc import Callable
from typing import Protocol

from activator.backend.breaker import QUEUE_DEPTH, Breaker
from activator.backend.endpoint import UpstreamEndpoint
from activator.backend.stats import Stats
from activator.interfaces import Backend, ProxiedRequest
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.routing import RequestPolicy

FOREVER = float("inf")


class RevisionHost(Protocol):
    """What a revision uses of its worker process."""

    def time(self) -> float:
        """Seconds on the loop's clock."""
        ...

    def call_later(self, seconds: float, callback: Callable[[Backend], None], endpoint: Backend) -> None:
        """Call back after `seconds`."""
        ...

    def track(self, revision: "RevisionBackend") -> None:
        """Include it in sweeps and reports until it has neither endpoints nor anything to report."""
        ...

    def poke(self, revision: str, waiting: int) -> None:
        """Tell the autoscaler that requests are queued."""
        ...

    def new_endpoint(self, id_: str, host: str, port: int, limit: int) -> UpstreamEndpoint:
        """Make an endpoint; its slots are shared with the other workers if there are any."""
        ...

    def announce_waiting(self, revision: str, waiting: bool) -> None:
        """Tell the other workers whether requests are queued here for slots of this revision."""
        ...

    def offer_slot(self, revision: str, dispatch: Callable[[], None], hold: bool) -> None:
        """Offer a free slot to the other workers; with `hold`, they get it first, and `dispatch` is called later."""
        ...


class RevisionBackend:
    """Created when a table first contains it; dropped when no table does and no request is in flight.

    It has more attributes than usual: the queue, the counts and the endpoints are objects of their own already; the
    rest is read for every request.
    """

    def __init__(self, name: str, host: RevisionHost) -> None:
        self.name = name
        self.policy = RequestPolicy()
        self.stats = Stats(host.time())
        self.endpoints: dict[str, UpstreamEndpoint] = {}
        self.breaker: Breaker[ProxiedRequest, UpstreamEndpoint] = Breaker(0, QUEUE_DEPTH, random.random)
        self.response_timeout = FOREVER
        """Seconds from getting a slot to the earliest time-out without a byte from the instance."""
        self.tracked = False
        """Whether it is included in sweeps and reports; most revisions are not, and take no CPU time."""
        self._host = host
        self._waiting_announced = False
        self.awaited_by_others = False
        """Requests are queued in other workers for slots of this revision."""
        self._others_turn = False
        self.routes: set[str] = set()
        """Entries of the routing table that lead here."""
        self._missing: set[str] = set()
        """Those of them that declare the Revision deleted."""

    @property
    def deleted_reason(self) -> str:
        """Why requests are not queued for it; empty while it exists."""
        if self._missing:
            return f"revision {self.name} was deleted"
        return ""

    def add_route(self, route: str, missing: bool) -> None:
        """An entry of the routing table leads here. Args: missing: it declares the Revision deleted."""
        self.routes.add(route)
        if missing:
            self._missing.add(route)
            self._reject_queued(self.deleted_reason)
        else:
            self._missing.discard(route)

    def remove_route(self, route: str) -> None:
        """An entry was removed; after the last one, queued requests are rejected, as they could never be sent."""
        if route in self.routes:
            self.routes.discard(route)
            self._missing.discard(route)
            if not self.routes:
                self._reject_queued("the service was deleted")

    def _reject_queued(self, reason: str) -> None:
        """Respond to all queued requests."""
        for exchange in list(self.breaker.queue):
            exchange.revision_deleted(reason)

    def configure(self, policy: RequestPolicy) -> None:
        """Apply the policy of the routing table."""
        if policy == self.policy:
            return
        self.policy = policy
        timeouts = [
            seconds for seconds in (policy.timeout, policy.response_start_timeout, policy.idle_timeout) if seconds
        ]
        self.response_timeout = min(timeouts, default=FOREVER)
        for endpoint in self.endpoints.values():
            endpoint.limit = policy.concurrency
            endpoint.h2c = policy.h2c
        self._resize()

    def set_endpoints(self, table_entry: RevisionEndpoints) -> None:
        """Apply an entry of the endpoint table: new endpoints get queued requests."""
        kept: dict[str, UpstreamEndpoint] = {}
        for entry in table_entry.endpoints:
            endpoint = self.endpoints.pop(entry.id, None)
            if endpoint is None or (endpoint.host, endpoint.port) != (entry.host, entry.port):
                if endpoint is not None:
                    endpoint.retire()
                endpoint = self._host.new_endpoint(entry.id, entry.host, entry.port, self.policy.concurrency)
                endpoint.h2c = self.policy.h2c
            endpoint.timing = entry.timing
            endpoint.draining = entry.state == "draining"
            if endpoint.draining:
                endpoint.retire()
            kept[entry.id] = endpoint
        for removed in self.endpoints.values():
            removed.retire()
        self.endpoints = kept
        if kept and not self.tracked:
            self._host.track(self)
        self._resize()

    def _resize(self) -> None:
        candidates = [each for each in self.endpoints.values() if not each.draining and not each.suspended]
        self._admit(self.breaker.resize(candidates, self.policy.concurrency))

    def suspend(self, endpoint: Backend) -> None:
        """Skip an endpoint that refused a connection, for longer each time."""
        if endpoint.suspended:
            return
        endpoint.suspended = True
        endpoint.failures += 1
        self._host.call_later(min(1.0, 0.02 * 2**endpoint.failures), self._resume, endpoint)
        self._resize()

    def _resume(self, endpoint: Backend) -> None:
        endpoint.suspended = False
        self._resize()

    def request_queued(self) -> None:
        """A request was queued."""
        self._host.poke(self.name, len(self.breaker.queue))
        if self.policy.concurrency and not self._waiting_announced:
            self._waiting_announced = True
            self._host.announce_waiting(self.name, True)

    def release(self, endpoint: Backend) -> None:
        """Release the slot of a request; the next one in the queue gets it."""
        endpoint.release_slot()
        if self.awaited_by_others:
            self._others_turn = not self._others_turn
            self._host.offer_slot(self.name, self.dispatch, self._others_turn)
        elif self.breaker.queue:
            self.dispatch()

    def dispatch(self) -> None:
        """Send queued requests for which there are slots."""
        self._admit(self.breaker.dispatch())

    def _admit(self, admitted: list[tuple[ProxiedRequest, UpstreamEndpoint]]) -> None:
        for exchange, endpoint in admitted:
            exchange.admitted(endpoint)
        if self._waiting_announced and not self.breaker.queue:
            self._waiting_announced = False
            self._host.announce_waiting(self.name, False)

    @property
    def cold(self) -> bool:
        """Whether no endpoint could get a request."""
        return not self.breaker.candidates

    def in_flight_by_endpoint(self) -> dict[str, int]:
        """Requests in each instance; empty for fewer than two instances."""
        if len(self.endpoints) < 2:
            return {}
        return {name: endpoint.in_flight for name, endpoint in self.endpoints.items() if endpoint.in_flight}

    def in_flight(self) -> int:
        """Requests in instances that are in the endpoint table."""
        return sum(endpoint.in_flight for endpoint in self.endpoints.values())
