"""All that the connections of one worker share: tables, requests on their way, clock, reports."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from activator.backend.endpoint import Dialer, UpstreamEndpoint, UpstreamPool
from activator.backend.revision import Revision
from activator.interfaces import Backend, Request
from activator.routing.routing_table import HostRoute, RoutingTable
from activator.wire.callback_guard import report_error
from activator.wire.connection_limit import ConnectionLimiter
from activator.wire.forwarding import Proxies
from activator.wire.http1_parser import RequestHead
from activator.wire.read_scheduler import ReadScheduler
from knoll.config.network import Underscores
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.reports import Poke, Report
from knoll.messages.routing import RouteEntry

log = structlog.get_logger()

CHECK_SECONDS = 0.1
"""How often deadlines of requests are looked at."""
SWEEP_SECONDS = 1.0
"""How often idle connections are looked at."""
OFFER_SECONDS = 0.002
"""How long a worker with requests of its own leaves a freed slot to the others, each second time."""
POKE_SECONDS = 0.1
"""At most one poke for a revision in this time, unless many more wait."""


class Connection(Protocol):
    """A client's connection, as far as the process is concerned."""

    def sweep(self, now: float) -> None: ...
    def retire(self) -> None: ...
    def abort(self) -> None: ...
    def abort_on_error(self) -> None: ...
    def clear_cached_heads(self) -> None: ...


class ProxyState:
    """The state of one worker's data path. Lives in one event loop."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Args: name: id of this worker in reports and among the tables' followers."""
        loop = loop or asyncio.get_running_loop()
        self.name = name
        self.time = loop.time
        self.call_soon = loop.call_soon
        self.wall_clock: Callable[[], float] = time.time
        """Epoch seconds."""
        self._loop = loop
        self.now = loop.time()
        """The clock when it was last read: good enough for what is counted in seconds."""
        self.requests: dict[Request, None] = {}
        """Requests that have entered a revision and not left it."""
        self.connections: set[Connection] = set()
        self.revisions: dict[str, Revision] = {}
        self.tracked: dict[Revision, None] = {}
        """Those that there may be something to do for, each second; a set that keeps its order."""
        self.routing: RoutingTable[Revision] = RoutingTable(self.revision, random.random)
        self.overload_status = 503
        self.read_scheduler = ReadScheduler(loop.call_soon)
        self.connection_limit = ConnectionLimiter()
        self.proxies = Proxies()
        """Clients whose word of where a request came from counts."""
        self.underscores: Underscores = "drop"
        """What becomes of header fields with an underscore in their name."""
        self.tag_header = False
        """`Knative-Serving-Tag` chooses a tag (feature tag-header-based-routing)."""
        self.log_request: Callable[[Request, int, float], None] | None = None
        self.send_poke: Callable[[Poke], None] = lambda _: None
        """Set by the reporter."""
        self.tell_others: Callable[[str, bool], None] = lambda _name, _waiting: None
        """Set where there are other workers."""
        self.freed: Callable[[str], None] = lambda _name: None
        self.shared = False
        """Slots are shared with other workers."""
        self.endpoint_factory: Callable[..., UpstreamEndpoint] = UpstreamEndpoint
        self._reported = loop.time()
        """When it was last reported."""
        self._endpoint_table: dict[str, RevisionEndpoints] = {}
        self._poked: dict[str, tuple[float, int]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # --- hot

    def route(self, head: RequestHead, local: bool) -> HostRoute[Revision] | None:
        """Where a request goes; None when no Route has its host."""
        routing = self.routing
        found = (routing.local if local else routing.public).get(head.authority)
        if found is None:
            found = routing.find(head.authority, local)
        if self.tag_header and head.tag and found is not None:
            found = found.tags.get(head.tag.decode("latin-1"), found)
        return found

    def set_client_rules(self, proxies: Proxies, underscores: Underscores) -> None:
        """Go by other rules for what a client says of itself."""
        self.proxies = self.connection_limit.proxies = proxies
        self.underscores = underscores
        for connection in self.connections:
            connection.clear_cached_heads()

    # --- what the tables say

    def revision(self, name: str) -> Revision:
        """Find or make."""
        found = self.revisions.get(name)
        if found is None:
            found = self.revisions[name] = Revision(name, self)
            found.set_endpoints(self._endpoint_table.get(name, RevisionEndpoints()))
        return found

    def replace_routes(self, entries: dict[str, RouteEntry]) -> None:
        """The whole routing table."""
        gone = self.routing.entries.keys() - entries.keys()
        self.routing.replace(entries)
        for name, entry in entries.items():
            self._configure(name, entry)
        for name in gone:
            self._remove_route(name)
        self._forget()

    def change_route(self, name: str, entry: RouteEntry | None) -> None:
        """One Route's entry."""
        self.routing.change(name, entry)
        if entry is not None:
            self._configure(name, entry)
        else:
            self._remove_route(name)
            self._forget()

    def _configure(self, route: str, entry: RouteEntry) -> None:
        for name, policy in entry.revisions.items():
            revision = self.revision(name)
            revision.configure(policy)
            revision.add_route(route, name in entry.missing)

    def _remove_route(self, route: str) -> None:
        for revision in self.revisions.values():
            revision.remove_route(route)

    def replace_endpoints(self, entries: dict[str, RevisionEndpoints]) -> None:
        """The whole table of endpoints."""
        gone = self._endpoint_table.keys() - entries.keys()
        self._endpoint_table = dict(entries)
        for name in gone:
            self.revision(name).set_endpoints(RevisionEndpoints())
        for name, found in entries.items():
            self.revision(name).set_endpoints(found)
        self._forget()

    def change_endpoints(self, name: str, found: RevisionEndpoints | None) -> None:
        """One revision's endpoints."""
        if found is None:
            self._endpoint_table.pop(name, None)
        else:
            self._endpoint_table[name] = found
        self.revision(name).set_endpoints(found or RevisionEndpoints())

    def _forget(self) -> None:
        """Drop revisions that no table speaks of and that carry nothing."""
        known = set(self._endpoint_table)
        for entry in self.routing.entries.values():
            known.update(entry.revisions)
        for name in [name for name in self.revisions if name not in known]:
            if not self.revisions[name].stats.active:
                del self.revisions[name]

    # --- see revision.Surroundings

    def track(self, revision: Revision) -> None:
        revision.tracked = True
        self.tracked[revision] = None

    def new_endpoint(self, id_: str, host: str, port: int, limit: int) -> UpstreamEndpoint:
        return self.endpoint_factory(id_, host, port, limit, _http2_pool)

    def poke(self, revision: str, waiting: int) -> None:
        """Tell the autoscaler, not of each of a thousand: at once of the first, then of twice as many."""
        at, told = self._poked.get(revision, (0.0, 0))
        if self.now - at < POKE_SECONDS and waiting < 2 * told:
            return
        self._poked[revision] = (self.now, waiting)
        self.send_poke(Poke(activator=self.name, revision=revision, at=self.wall_clock(), waiting=waiting))

    def call_later(self, seconds: float, callback: Callable[[Backend], None], endpoint: Backend) -> None:
        self._loop.call_later(seconds, callback, endpoint)

    def announce_waiting(self, revision: str, waiting: bool) -> None:
        self.tell_others(revision, waiting)

    def offer_slot(self, revision: str, dispatch: Callable[[], None], hold: bool) -> None:
        self.freed(revision)
        if hold:
            self._loop.call_later(OFFER_SECONDS * (0.5 + random.random()), dispatch)  # noqa: S311 - no secret
        else:
            dispatch()

    def dispatch_queued(self, name: str) -> None:
        """Slots of a revision (of any, when empty) may have become free in another process."""
        found = self.revisions.get(name)
        for revision in [found] if found is not None else [] if name else list(self.tracked):
            if revision.breaker.queue:
                revision.dispatch()

    # --- time

    def start(self) -> None:
        """Begin to watch deadlines."""
        self._tasks = [asyncio.create_task(self._check()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        """End everything that is left, at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self.connections):
            connection.abort()
        for revision in self.revisions.values():
            for endpoint in revision.endpoints.values():
                endpoint.retire()

    async def drain(self, seconds: float) -> bool:
        """Let requests end; connections that are idle are closed. Says whether all ended in time."""
        until = self.time() + seconds
        while self.connections and self.time() < until:
            for connection in list(self.connections):
                connection.retire()
            await asyncio.sleep(0.05)
        return not self.connections

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            now = self.now = self.time()
            for exchange in [each for each in self.requests if each.deadline <= now]:
                if exchange in self.requests:
                    try:
                        exchange.deadline_passed(now)
                    except Exception as error:
                        exchange.internal_error(error)
            if self.shared:
                self.dispatch_queued("")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.time()
            for connection in list(self.connections):
                try:
                    connection.sweep(now)
                except Exception as error:
                    report_error(connection, "sweep", error)
            for revision in self.tracked:
                for endpoint in revision.endpoints.values():
                    endpoint.sweep(now)

    def report(self, at: float) -> Report | None:
        """What to tell the autoscaler of the time since the last report; None when there is nothing to say.

        Args:
            at: epoch seconds, now.
        """
        now, lines, draining, tunnels = self.time(), [], {}, {}
        # By the same clock as what was counted, or a mean could be more than there ever was.
        period, self._reported = max(now - self._reported, 1e-3), now
        for revision in list(self.tracked):
            if revision.stats.quiet and not revision.endpoints:
                revision.tracked = False
                del self.tracked[revision]
                continue
            waiting = len(revision.breaker.queue)
            line = revision.stats.report(
                revision.name, now, period, revision.in_flight(), waiting, revision.in_flight_by_endpoint()
            )
            if line is not None:
                lines.append(line)
            if revision.breaker.queue:
                self.poke(revision.name, len(revision.breaker.queue))
            for endpoint in revision.endpoints.values():
                if endpoint.draining:
                    draining[endpoint.id] = endpoint.in_flight - endpoint.tunnels
                    if endpoint.tunnels:
                        tunnels[endpoint.id] = endpoint.tunnels
        if not lines and not draining:
            return None
        return Report(
            activator=self.name, at=at, period=period, revisions=tuple(lines), draining=draining, tunnels=tunnels
        )


def _http2_pool(dialer: Dialer) -> UpstreamPool:
    from activator.backend.http2_upstream import (
        Http2Pool,  # the h2 library takes a moment to load; few services speak h2c
    )

    return Http2Pool(dialer)
