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
from activator.wire.callback_guard import failed
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
OTHERS_SECONDS = 0.002
"""How long a worker with requests of its own leaves a freed slot to the others, each second time."""
POKE_SECONDS = 0.1
"""At most one poke for a revision in this time, unless many more wait."""


class Connection(Protocol):
    """A client's connection, as far as the process is concerned."""

    def sweep(self, now: float) -> None: ...
    def retire(self) -> None: ...
    def abort(self) -> None: ...
    def fault(self) -> None: ...
    def reread(self) -> None: ...


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
        self.live: dict[Request, None] = {}
        """Requests that have entered a revision and not left it."""
        self.connections: set[Connection] = set()
        self.revisions: dict[str, Revision] = {}
        self.awake: dict[Revision, None] = {}
        """Those that there may be something to do for, each second; a set that keeps its order."""
        self.routing: RoutingTable[Revision] = RoutingTable(self.revision, random.random)
        self.overload_status = 503
        self.turns = ReadScheduler(loop.call_soon)
        self.crowds = ConnectionLimiter()
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
        self.make_instance: Callable[..., UpstreamEndpoint] = UpstreamEndpoint
        self._reported = loop.time()
        """When it was last reported."""
        self._endpoints: dict[str, RevisionEndpoints] = {}
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

    def trust(self, proxies: Proxies, underscores: Underscores) -> None:
        """Go by other rules for what a client says of itself."""
        self.proxies = self.crowds.proxies = proxies
        self.underscores = underscores
        for connection in self.connections:
            connection.reread()

    # --- what the tables say

    def revision(self, name: str) -> Revision:
        """Find or make."""
        found = self.revisions.get(name)
        if found is None:
            found = self.revisions[name] = Revision(name, self)
            found.populate(self._endpoints.get(name, RevisionEndpoints()))
        return found

    def replace_routes(self, entries: dict[str, RouteEntry]) -> None:
        """The whole routing table."""
        gone = self.routing.entries.keys() - entries.keys()
        self.routing.replace(entries)
        for name, entry in entries.items():
            self._configure(name, entry)
        for name in gone:
            self._unroute(name)
        self._forget()

    def change_route(self, name: str, entry: RouteEntry | None) -> None:
        """One Route's entry."""
        self.routing.change(name, entry)
        if entry is not None:
            self._configure(name, entry)
        else:
            self._unroute(name)
            self._forget()

    def _configure(self, route: str, entry: RouteEntry) -> None:
        for name, plane in entry.revisions.items():
            revision = self.revision(name)
            revision.configure(plane)
            revision.named(route, name in entry.missing)

    def _unroute(self, route: str) -> None:
        for revision in self.revisions.values():
            revision.unrouted(route)

    def replace_endpoints(self, entries: dict[str, RevisionEndpoints]) -> None:
        """The whole table of endpoints."""
        gone = self._endpoints.keys() - entries.keys()
        self._endpoints = dict(entries)
        for name in gone:
            self.revision(name).populate(RevisionEndpoints())
        for name, found in entries.items():
            self.revision(name).populate(found)
        self._forget()

    def change_endpoints(self, name: str, found: RevisionEndpoints | None) -> None:
        """One revision's endpoints."""
        if found is None:
            self._endpoints.pop(name, None)
        else:
            self._endpoints[name] = found
        self.revision(name).populate(found or RevisionEndpoints())

    def _forget(self) -> None:
        """Drop revisions that no table speaks of and that carry nothing."""
        known = set(self._endpoints)
        for entry in self.routing.entries.values():
            known.update(entry.revisions)
        for name in [name for name in self.revisions if name not in known]:
            if not self.revisions[name].stats.active:
                del self.revisions[name]

    # --- see revision.Surroundings

    def wake(self, revision: Revision) -> None:
        revision.awake = True
        self.awake[revision] = None

    def instance(self, id_: str, host: str, port: int, limit: int) -> UpstreamEndpoint:
        return self.make_instance(id_, host, port, limit, _http2_pool)

    def poke(self, revision: str, waiting: int) -> None:
        """Tell the autoscaler, not of each of a thousand: at once of the first, then of twice as many."""
        at, told = self._poked.get(revision, (0.0, 0))
        if self.now - at < POKE_SECONDS and waiting < 2 * told:
            return
        self._poked[revision] = (self.now, waiting)
        self.send_poke(Poke(activator=self.name, revision=revision, at=self.wall_clock(), waiting=waiting))

    def later(self, seconds: float, callback: Callable[[Backend], None], instance: Backend) -> None:
        self._loop.call_later(seconds, callback, instance)

    def wait_for_others(self, revision: str, waiting: bool) -> None:
        self.tell_others(revision, waiting)

    def give_to_others(self, revision: str, serve: Callable[[], None], hold: bool) -> None:
        self.freed(revision)
        if hold:
            self._loop.call_later(OTHERS_SECONDS * (0.5 + random.random()), serve)  # noqa: S311 - no secret
        else:
            serve()

    def serve_again(self, name: str) -> None:
        """Slots of a revision (of any, when empty) may have become free in another process."""
        found = self.revisions.get(name)
        for revision in [found] if found is not None else [] if name else list(self.awake):
            if revision.breaker.queue:
                revision.serve()

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
            for instance in revision.instances.values():
                instance.retire()

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
            for exchange in [each for each in self.live if each.deadline <= now]:
                if exchange in self.live:
                    try:
                        exchange.check(now)
                    except Exception as error:
                        exchange.crashed(error)
            if self.shared:
                self.serve_again("")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.time()
            for connection in list(self.connections):
                try:
                    connection.sweep(now)
                except Exception as error:
                    failed(connection, "sweep", error)
            for revision in self.awake:
                for instance in revision.instances.values():
                    instance.sweep(now)

    def report(self, at: float) -> Report | None:
        """What to tell the autoscaler of the time since the last report; None when there is nothing to say.

        Args:
            at: epoch seconds, now.
        """
        now, lines, draining, tunnels = self.time(), [], {}, {}
        # By the same clock as what was counted, or a mean could be more than there ever was.
        period, self._reported = max(now - self._reported, 1e-3), now
        for revision in list(self.awake):
            if revision.stats.quiet and not revision.instances:
                revision.awake = False
                del self.awake[revision]
                continue
            waiting = len(revision.breaker.queue)
            line = revision.stats.report(revision.name, now, period, revision.in_flight(), waiting, revision.held())
            if line is not None:
                lines.append(line)
            if revision.breaker.queue:
                self.poke(revision.name, len(revision.breaker.queue))
            for instance in revision.instances.values():
                if instance.draining:
                    draining[instance.id] = instance.in_flight - instance.tunnels
                    if instance.tunnels:
                        tunnels[instance.id] = instance.tunnels
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
