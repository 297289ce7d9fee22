"""A revision as the activator uses it: its endpoints, its queue and its counts."""

import random
from collections.abc import Callable
from typing import Protocol

from activator.backend.breaker import QUEUE_DEPTH, Breaker
from activator.backend.endpoint import UpstreamEndpoint
from activator.backend.slot_sharing import RelayWaiter, SlotSharing
from activator.backend.stats import Stats
from activator.interfaces import Backend, ProxiedRequest
from knoll.messages.endpoints import Endpoint, RevisionEndpoints
from knoll.messages.routing import RequestPolicy

FOREVER = float("inf")
REFUSED_SECONDS = 0.04
"""How long an instance is skipped after its first refused connection; doubled each time, up to 1 s."""
BUSY_SECONDS = 0.02
"""How long an instance of another node is skipped after that node had no slot for a request."""
OFFER_SECONDS = 0.002
"""Mean time that a released slot is left to other workers when it is their turn; it varies by up to half of this."""
OFFER_NODES_SECONDS = 0.006
"""The same for other nodes, which are notified over the network."""


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

    def other_node(self, node: str) -> str:
        """Return the name, or an empty string if it is that of this node."""
        ...

    def new_remote_endpoint(self, revision: str, id_: str, node: str, limit: int) -> UpstreamEndpoint:
        """Create the endpoint of an instance of another node."""
        ...

    def announce_waiting(self, revision: str, waiting: bool) -> None:
        """Tell the other workers whether requests are queued here for slots of this revision."""
        ...

    def offer_slot(self, revision: str, dispatch: Callable[[], None], hold: float) -> None:
        """Offer a free slot to the other workers, and call `dispatch` about `hold` seconds later."""
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
        """Whether requests for slots of this revision are queued in other workers or on other nodes."""
        self.cold = True
        """Whether no instance can be reached."""
        self._sharing = SlotSharing(name)
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
            node = self._host.other_node(entry.node)
            if endpoint is None or (endpoint.host, endpoint.port, endpoint.node) != (entry.host, entry.port, node):
                if endpoint is not None:
                    endpoint.retire()
                endpoint = self._new_endpoint(entry, node)
            endpoint.busy = False
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

    def _new_endpoint(self, entry: Endpoint, node: str) -> UpstreamEndpoint:
        if node:
            endpoint = self._host.new_remote_endpoint(self.name, entry.id, node, self.policy.concurrency)
            endpoint.host, endpoint.port = entry.host, entry.port
        else:
            endpoint = self._host.new_endpoint(entry.id, entry.host, entry.port, self.policy.concurrency)
            endpoint.h2c = self.policy.h2c
        return endpoint

    def _resize(self) -> None:
        usable = [each for each in self.endpoints.values() if not each.draining and not each.suspended]
        local = [each for each in usable if not each.node]
        if len(local) == len(usable):
            self.cold = not local
            self._admit(self.breaker.resize(local, self.policy.concurrency))
            return
        reachable = [each for each in usable if each.node and each.reachable]
        if responding := [each for each in (*local, *reachable) if not each.failed]:
            reachable = [each for each in responding if each.node]
        self.cold = not local and not reachable
        candidates = [*local, *(each for each in reachable if not each.busy)]
        self._admit(self.breaker.resize(candidates, self.policy.concurrency, len(local)))

    def nodes_changed(self) -> None:
        """Called when a node became reachable, failed or responds again."""
        if any(endpoint.node for endpoint in self.endpoints.values()):
            self._resize()

    def suspend(self, endpoint: Backend, seconds: float = REFUSED_SECONDS) -> None:
        """Skip an endpoint that refused a connection, for longer each time. Args: seconds: the first time."""
        if endpoint.suspended:
            return
        endpoint.suspended = True
        self._host.call_later(min(1.0, seconds * 2**endpoint.failures), self._resume, endpoint)
        endpoint.failures += 1
        self._resize()

    def _resume(self, endpoint: Backend) -> None:
        endpoint.suspended = False
        self._resize()

    def set_busy(self, endpoint: Backend) -> None:
        """Skip an instance of another node for a moment: that node had no slot for a request."""
        if not endpoint.busy:
            endpoint.busy = True
            self._host.call_later(BUSY_SECONDS, self._set_free, endpoint)
            self._resize()

    def _set_free(self, endpoint: Backend) -> None:
        if endpoint.busy:
            endpoint.busy = False
            self._resize()

    def instance_free(self, instance: str) -> bool:
        """Called when another node has a free slot of its instance; returns whether a request was queued."""
        endpoint, waiting = self.endpoints.get(instance), bool(self.breaker.queue)
        if endpoint is not None:
            self._set_free(endpoint)
        return endpoint is not None and waiting

    def await_slot(self, waiter: RelayWaiter, instance: str) -> None:
        """Called when another node was told that an instance of this node is busy."""
        self._sharing.add(waiter, instance)
        self.awaited_by_others = True
        self._announce_waiting()

    def stop_awaiting(self, waiter: RelayWaiter) -> None:
        """Called when another node has the slot that it waited for, or no longer needs one."""
        if self._sharing.other_nodes:
            self._sharing.remove(waiter)
            self._sharing_changed()

    def set_awaited_by_workers(self, awaited: bool) -> None:
        """Args: awaited: whether requests are queued in other workers of this node."""
        self._sharing.other_workers = awaited
        self.awaited_by_others = bool(self._sharing)

    def request_queued(self) -> None:
        """A request was queued."""
        self._host.poke(self.name, len(self.breaker.queue))
        if self.policy.concurrency:
            self._announce_waiting()

    def _announce_waiting(self) -> None:
        waiting = bool(self.breaker.queue) or self._sharing.other_nodes
        if waiting != self._waiting_announced:
            self._waiting_announced = waiting
            self._host.announce_waiting(self.name, waiting)

    def release(self, endpoint: Backend) -> None:
        """Release the slot of a request; the next one in the queue gets it."""
        endpoint.release_slot()
        if self.awaited_by_others or self.breaker.queue:
            self.slot_released(endpoint)

    def slot_released(self, endpoint: Backend) -> None:
        """Called after a slot was released for which requests are queued, here or elsewhere."""
        if self.awaited_by_others:
            self._share_slot(endpoint)
        else:
            self.dispatch()

    def _share_slot(self, endpoint: Backend) -> None:
        """Decide who gets a free slot that others wait for as well."""
        sharing, hold = self._sharing, 0.0
        if sharing.next_turn():
            hold = OFFER_NODES_SECONDS if sharing.other_nodes else OFFER_SECONDS
        if hold or not self.breaker.queue:
            self._offer_to_nodes(endpoint.id)
        self._host.offer_slot(self.name, self.dispatch, hold)

    def _offer_to_nodes(self, instance: str = "") -> None:
        if self._sharing.other_nodes:
            self._sharing.offer(instance)
            self._sharing_changed()

    def _sharing_changed(self) -> None:
        self.awaited_by_others = bool(self._sharing)
        self._announce_waiting()

    def slot_released_elsewhere(self) -> None:
        """Called when a slot may have been released in another worker of this node."""
        if self.breaker.queue:
            self.dispatch()
        self._offer_to_nodes()

    def dispatch(self) -> None:
        """Send queued requests for which there are slots."""
        self._admit(self.breaker.dispatch())

    def _admit(self, admitted: list[tuple[ProxiedRequest, UpstreamEndpoint]]) -> None:
        for exchange, endpoint in admitted:
            exchange.admitted(endpoint)
        if self._waiting_announced and not self.breaker.queue:
            self._announce_waiting()

    def in_flight_by_endpoint(self) -> dict[str, int]:
        """Return the requests in each instance that arrived at this node; empty for fewer than two instances."""
        if len(self.endpoints) < 2:
            return {}
        counts = {name: endpoint.in_flight - endpoint.relayed for name, endpoint in self.endpoints.items()}
        return {name: count for name, count in counts.items() if count}

    def in_flight(self) -> int:
        """Return how many requests that arrived at this node are in instances of the endpoint table."""
        return sum(endpoint.in_flight - endpoint.relayed for endpoint in self.endpoints.values())
