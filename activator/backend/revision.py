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

    def later(self, seconds: float, callback: Callable[[Backend], None], instance: Backend) -> None:
        """Call back after a while."""
        ...

    def wake(self, revision: "Revision") -> None:
        """Look at it from now on, until it has neither instances nor anything to report."""
        ...

    def poke(self, revision: str, waiting: int) -> None:
        """Tell the autoscaler that requests wait."""
        ...

    def instance(self, id_: str, host: str, port: int, limit: int) -> UpstreamEndpoint:
        """Make one; its slots are shared with other worker processes where there are any."""
        ...

    def wait_for_others(self, revision: str, waiting: bool) -> None:
        """Tell the other workers that slots of this revision are wanted here, or no longer."""
        ...

    def give_to_others(self, revision: str, serve: Callable[[], None], hold: bool) -> None:
        """Tell the other workers of a free slot; with `hold`, call `serve` only after they had their chance."""
        ...


class Revision:
    """Created when a table first speaks of it; lives until neither does and nothing is in flight."""

    def __init__(self, name: str, around: RevisionHost) -> None:
        self.name = name
        self.plane = RequestPolicy()
        self.stats = Stats(around.time())
        self.instances: dict[str, UpstreamEndpoint] = {}
        self.breaker: Breaker[Request, UpstreamEndpoint] = Breaker(0, QUEUE_DEPTH, random.random)
        self.answer_by = FOREVER
        """Seconds from the slot until the earliest time-out without a byte from the instance."""
        self.awake = False
        """Whether there may be something to do for it or to tell of it; most sleep, and cost nothing."""
        self._around = around
        self._interest = False
        self.wanted_elsewhere = False
        """Requests of other worker processes wait for slots of this revision."""
        self._others_turn = False
        self.routes: set[str] = set()
        """Entries of the routing table that led here and still are."""
        self._missing: set[str] = set()
        """Those of them that say that the Revision was deleted."""

    @property
    def gone(self) -> str:
        """Why no request is to wait for it; empty while it is there."""
        if self._missing:
            return f"revision {self.name} was deleted"
        return ""

    def named(self, route: str, missing: bool) -> None:
        """An entry of the routing table leads here. Args: missing: it says that the Revision was deleted."""
        self.routes.add(route)
        if missing:
            self._missing.add(route)
            self._let_go(self.gone)
        else:
            self._missing.discard(route)

    def unrouted(self, route: str) -> None:
        """An entry was removed; when it was the last one, what waits would wait for ever."""
        if route in self.routes:
            self.routes.discard(route)
            self._missing.discard(route)
            if not self.routes:
                self._let_go("the service was deleted")

    def _let_go(self, reason: str) -> None:
        """Answer all that wait."""
        for exchange in list(self.breaker.queue):
            exchange.forsaken(reason)

    def configure(self, plane: RequestPolicy) -> None:
        """Take over what the routing table says."""
        if plane == self.plane:
            return
        self.plane = plane
        set_ = [seconds for seconds in (plane.timeout, plane.response_start_timeout, plane.idle_timeout) if seconds]
        self.answer_by = min(set_, default=FOREVER)
        for instance in self.instances.values():
            instance.limit = plane.concurrency
            instance.h2c = plane.h2c
        self._resize()

    def populate(self, found: RevisionEndpoints) -> None:
        """Take over what the table of endpoints says: new instances serve those that wait."""
        kept: dict[str, UpstreamEndpoint] = {}
        for endpoint in found.endpoints:
            instance = self.instances.pop(endpoint.id, None)
            if instance is None or (instance.host, instance.port) != (endpoint.host, endpoint.port):
                if instance is not None:
                    instance.retire()
                instance = self._around.instance(endpoint.id, endpoint.host, endpoint.port, self.plane.concurrency)
                instance.h2c = self.plane.h2c
            instance.timing = endpoint.timing
            instance.draining = endpoint.state == "draining"
            if instance.draining:
                instance.retire()
            kept[endpoint.id] = instance
        for gone in self.instances.values():
            gone.retire()
        self.instances = kept
        if kept and not self.awake:
            self._around.wake(self)
        self._resize()

    def _resize(self) -> None:
        slots = [i for i in self.instances.values() if not i.draining and not i.suspended]
        self._run(self.breaker.resize(slots, self.plane.concurrency))

    def suspend(self, instance: Backend) -> None:
        """Pick an instance that refused a connection no more for a moment, longer each time."""
        if instance.suspended:
            return
        instance.suspended = True
        instance.failures += 1
        self._around.later(min(1.0, 0.02 * 2**instance.failures), self._resume, instance)
        self._resize()

    def _resume(self, instance: Backend) -> None:
        instance.suspended = False
        self._resize()

    def waits(self) -> None:
        """A request was put into the queue."""
        self._around.poke(self.name, len(self.breaker.queue))
        if self.plane.concurrency and not self._interest:
            self._interest = True
            self._around.wait_for_others(self.name, True)

    def leave(self, instance: Backend) -> None:
        """A request gives its slot back; the next in the queue gets it."""
        instance.give()
        if self.wanted_elsewhere:
            self._others_turn = not self._others_turn
            self._around.give_to_others(self.name, self.serve, self._others_turn)
        elif self.breaker.queue:
            self.serve()

    def serve(self) -> None:
        """Let those run that may."""
        self._run(self.breaker.serve())

    def _run(self, served: list[tuple[Request, UpstreamEndpoint]]) -> None:
        for exchange, instance in served:
            exchange.admitted(instance)
        if self._interest and not self.breaker.queue:
            self._interest = False
            self._around.wait_for_others(self.name, False)

    @property
    def cold(self) -> bool:
        """Whether there is no instance that could take a request."""
        return not self.breaker.slots

    def held(self) -> dict[str, int]:
        """Requests in each instance; empty where there is no choice between several."""
        if len(self.instances) < 2:
            return {}
        return {name: instance.in_flight for name, instance in self.instances.items() if instance.in_flight}

    def in_flight(self) -> int:
        """Requests in instances, those of instances that left the table not counted."""
        return sum(instance.in_flight for instance in self.instances.values())
