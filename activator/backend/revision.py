"""A revision as the data path sees it: its instances, its queue, its counts."""

import random
from collections.abc import Callable
from typing import Protocol

from activator.backend.breaker import QUEUE_DEPTH, Breaker
from activator.backend.endpoint import UpstreamEndpoint
from activator.backend.stats import Stats
from activator.interfaces import Backend, Request
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.routing import RequestPolicy

FOREVER = float("inf")


class RevisionHost(Protocol):
    """What a revision needs from the process around it."""

    def time(self) -> float:
        """Seconds on the loop's clock."""
        ...

    def call_later(self, seconds: float, callback: Callable[[Backend], None], endpoint: Backend) -> None:
        """Call back after a while."""
        ...

    def track(self, revision: "Revision") -> None:
        """Look at it from now on, until it has neither instances nor anything to report."""
        ...

    def poke(self, revision: str, waiting: int) -> None:
        """Tell the autoscaler that requests wait."""
        ...

    def new_endpoint(self, id_: str, host: str, port: int, limit: int) -> UpstreamEndpoint:
        """Make one; its slots are shared with other worker processes where there are any."""
        ...

    def announce_waiting(self, revision: str, waiting: bool) -> None:
        """Tell the other workers that slots of this revision are wanted here, or no longer."""
        ...

    def offer_slot(self, revision: str, dispatch: Callable[[], None], hold: bool) -> None:
        """Tell the other workers of a free slot; with `hold`, call `serve` only after they had their chance."""
        ...


class Revision:
    """Created when a table first speaks of it; lives until neither does and nothing is in flight."""

    def __init__(self, name: str, host: RevisionHost) -> None:
        self.name = name
        self.policy = RequestPolicy()
        self.stats = Stats(host.time())
        self.endpoints: dict[str, UpstreamEndpoint] = {}
        self.breaker: Breaker[Request, UpstreamEndpoint] = Breaker(0, QUEUE_DEPTH, random.random)
        self.response_timeout = FOREVER
        """Seconds from the slot until the earliest time-out without a byte from the instance."""
        self.tracked = False
        """Whether there may be something to do for it or to tell of it; most sleep, and cost nothing."""
        self._host = host
        self._waiting_announced = False
        self.awaited_by_others = False
        """Requests of other worker processes wait for slots of this revision."""
        self._others_turn = False
        self.routes: set[str] = set()
        """Entries of the routing table that led here and still are."""
        self._missing: set[str] = set()
        """Those of them that say that the Revision was deleted."""

    @property
    def deleted_reason(self) -> str:
        """Why no request is to wait for it; empty while it is there."""
        if self._missing:
            return f"revision {self.name} was deleted"
        return ""

    def add_route(self, route: str, missing: bool) -> None:
        """An entry of the routing table leads here. Args: missing: it says that the Revision was deleted."""
        self.routes.add(route)
        if missing:
            self._missing.add(route)
            self._reject_queued(self.deleted_reason)
        else:
            self._missing.discard(route)

    def remove_route(self, route: str) -> None:
        """An entry was removed; when it was the last one, what waits would wait for ever."""
        if route in self.routes:
            self.routes.discard(route)
            self._missing.discard(route)
            if not self.routes:
                self._reject_queued("the service was deleted")

    def _reject_queued(self, reason: str) -> None:
        """Answer all that wait."""
        for exchange in list(self.breaker.queue):
            exchange.revision_deleted(reason)

    def configure(self, policy: RequestPolicy) -> None:
        """Take over what the routing table says."""
        if policy == self.policy:
            return
        self.policy = policy
        set_ = [seconds for seconds in (policy.timeout, policy.response_start_timeout, policy.idle_timeout) if seconds]
        self.response_timeout = min(set_, default=FOREVER)
        for endpoint in self.endpoints.values():
            endpoint.limit = policy.concurrency
            endpoint.h2c = policy.h2c
        self._resize()

    def set_endpoints(self, table_entry: RevisionEndpoints) -> None:
        """Take over what the table of endpoints says: new instances serve those that wait."""
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
        for gone in self.endpoints.values():
            gone.retire()
        self.endpoints = kept
        if kept and not self.tracked:
            self._host.track(self)
        self._resize()

    def _resize(self) -> None:
        candidates = [i for i in self.endpoints.values() if not i.draining and not i.suspended]
        self._run(self.breaker.resize(candidates, self.policy.concurrency))

    def suspend(self, endpoint: Backend) -> None:
        """Pick an instance that refused a connection no more for a moment, longer each time."""
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
        """A request was put into the queue."""
        self._host.poke(self.name, len(self.breaker.queue))
        if self.policy.concurrency and not self._waiting_announced:
            self._waiting_announced = True
            self._host.announce_waiting(self.name, True)

    def release(self, endpoint: Backend) -> None:
        """A request gives its slot back; the next in the queue gets it."""
        endpoint.release_slot()
        if self.awaited_by_others:
            self._others_turn = not self._others_turn
            self._host.offer_slot(self.name, self.dispatch, self._others_turn)
        elif self.breaker.queue:
            self.dispatch()

    def dispatch(self) -> None:
        """Let those run that may."""
        self._run(self.breaker.dispatch())

    def _run(self, served: list[tuple[Request, UpstreamEndpoint]]) -> None:
        for exchange, endpoint in served:
            exchange.admitted(endpoint)
        if self._waiting_announced and not self.breaker.queue:
            self._waiting_announced = False
            self._host.announce_waiting(self.name, False)

    @property
    def cold(self) -> bool:
        """Whether there is no instance that could take a request."""
        return not self.breaker.candidates

    def in_flight_by_endpoint(self) -> dict[str, int]:
        """Requests in each instance; empty where there is no choice between several."""
        if len(self.endpoints) < 2:
            return {}
        return {name: endpoint.in_flight for name, endpoint in self.endpoints.items() if endpoint.in_flight}

    def in_flight(self) -> int:
        """Requests in instances, those of instances that left the table not counted."""
        return sum(endpoint.in_flight for endpoint in self.endpoints.values())
