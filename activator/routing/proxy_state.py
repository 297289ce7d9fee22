"""State shared by the connections of one worker: tables, requests, clock, reports."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from activator.backend.endpoint import Dialer, UpstreamEndpoint, UpstreamPool
from activator.backend.nodes import Nodes, RemoteEndpoint
from activator.backend.revision import RevisionBackend
from activator.interfaces import Backend, ProxiedRequest
from activator.routing.routing_table import HostRoute, RoutingTable
from activator.wire import http2_codecs
from activator.wire.callback_guard import report_error
from activator.wire.connection_limit import ConnectionLimiter
from activator.wire.forwarding import Proxies
from activator.wire.http1_heads import RequestHead
from activator.wire.http2_codec import CodecFactory
from activator.wire.read_scheduler import ReadScheduler
from knoll.config.network import Underscores
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.reports import Poke, Report
from knoll.messages.routing import RouteEntry

log = structlog.get_logger()

CHECK_SECONDS = 0.1
"""Interval between checks of deadlines."""
SWEEP_SECONDS = 1.0
"""Interval between checks of idle connections."""
POKE_SECONDS = 0.1
"""At most one poke for a revision in this time, unless twice as many requests are queued."""


class ClientConnection(Protocol):
    """A client's connection, as the worker sees it."""

    def sweep(self, now: float) -> None: ...
    def retire(self) -> None: ...
    def abort(self) -> None: ...
    def abort_on_error(self) -> None: ...
    def clear_cached_heads(self) -> None: ...


class OtherWorkers(Protocol):
    """The other worker processes, which share the slots of instances."""

    def announce_waiting(self, revision: str, waiting: bool) -> None:
        """Announce whether requests are queued here for slots of this revision."""
        ...

    def offer_slot(self, revision: str) -> None:
        """Announce that a slot was released."""
        ...


class ProxyState:
    """State of one worker; used in one event loop.

    One object with more attributes than usual, because each request uses most of them, and a second object would cost a
    look-up for each access.
    """

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
        """The loop's clock when it was last read: precise enough for time-outs."""
        self.requests: dict[ProxiedRequest, None] = {}
        """Requests that were routed and have not ended; a set that keeps its order."""
        self.connections: set[ClientConnection] = set()
        self.revisions: dict[str, RevisionBackend] = {}
        self.tracked: dict[RevisionBackend, None] = {}
        """Revisions included in sweeps and reports; a set that keeps its order."""
        self.routing: RoutingTable[RevisionBackend] = RoutingTable(self.revision, random.random)
        self.overload_status = 503
        self.read_scheduler = ReadScheduler(loop.call_soon)
        self.connection_limit = ConnectionLimiter()
        self.proxies = Proxies()
        """Proxies whose forwarding fields are trusted."""
        self.underscores: Underscores = "drop"
        """How header fields with an underscore in their name are treated."""
        self.tag_header = False
        """`Knative-Serving-Tag` selects a tag (feature tag-header-based-routing)."""
        self.log_request: Callable[[ProxiedRequest, int, float], None] | None = None
        self.send_poke: Callable[[Poke], None] = lambda _: None
        """Set by the reporter."""
        self.other_workers: OtherWorkers | None = None
        """Set if slots are shared with other workers."""
        self.new_codec: CodecFactory = http2_codecs.default
        """Makes the codecs of HTTP/2."""
        self.endpoint_factory: Callable[..., UpstreamEndpoint] = UpstreamEndpoint
        self.nodes = Nodes(self._slot_free, self._nodes_changed)
        self._reported = loop.time()
        """Time of the last report."""
        self._endpoint_table: dict[str, RevisionEndpoints] = {}
        self._poked: dict[str, tuple[float, int]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._requested, self._connected, self._tracked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        """Set when there is something to check, so that an idle worker has no timers."""

    # --- for each request

    def route(self, head: RequestHead, local: bool) -> HostRoute[RevisionBackend] | None:
        """Return the route of a request; None if no Route has its host."""
        routing = self.routing
        host_route = (routing.local if local else routing.public).get(head.authority)
        if host_route is None:
            host_route = routing.find(head.authority, local)
        if self.tag_header and head.tag and host_route is not None:
            host_route = host_route.tags.get(head.tag.decode("latin-1"), host_route)
        return host_route

    def set_client_rules(self, proxies: Proxies, underscores: Underscores) -> None:
        """Change which proxies are trusted and how fields with underscores are treated."""
        self.proxies = self.connection_limit.proxies = proxies
        self.underscores = underscores
        for connection in self.connections:
            connection.clear_cached_heads()

    # --- tables

    def revision(self, name: str) -> RevisionBackend:
        """Return the revision of a name; create it if it does not exist."""
        revision = self.revisions.get(name)
        if revision is None:
            revision = self.revisions[name] = RevisionBackend(name, self)
            revision.set_endpoints(self._endpoint_table.get(name, RevisionEndpoints()))
        return revision

    def replace_routes(self, entries: dict[str, RouteEntry]) -> None:
        """Replace the routing table."""
        removed = self.routing.entries.keys() - entries.keys()
        self.routing.replace(entries)
        for name, entry in entries.items():
            self._configure(name, entry)
        for name in removed:
            self._remove_route(name)
        self._drop_unused()

    def change_route(self, name: str, entry: RouteEntry | None) -> None:
        """Set one Route's entry; None removes it."""
        self.routing.change(name, entry)
        if entry is not None:
            self._configure(name, entry)
        else:
            self._remove_route(name)
            self._drop_unused()

    def _configure(self, route: str, entry: RouteEntry) -> None:
        for name, policy in entry.revisions.items():
            revision = self.revision(name)
            revision.configure(policy)
            revision.add_route(route, name in entry.missing)

    def _remove_route(self, route: str) -> None:
        for revision in self.revisions.values():
            revision.remove_route(route)

    def replace_endpoints(self, entries: dict[str, RevisionEndpoints]) -> None:
        """Replace the endpoint table."""
        removed = self._endpoint_table.keys() - entries.keys()
        self._endpoint_table = dict(entries)
        for name in removed:
            self.revision(name).set_endpoints(RevisionEndpoints())
        for name, endpoints in entries.items():
            self.revision(name).set_endpoints(endpoints)
        self._drop_unused()

    def change_endpoints(self, name: str, endpoints: RevisionEndpoints | None) -> None:
        """Set one revision's endpoints; None removes them."""
        if endpoints is None:
            self._endpoint_table.pop(name, None)
        else:
            self._endpoint_table[name] = endpoints
        self.revision(name).set_endpoints(endpoints or RevisionEndpoints())

    def _drop_unused(self) -> None:
        """Drop revisions that are in no table and have no requests."""
        used = set(self._endpoint_table)
        for entry in self.routing.entries.values():
            used.update(entry.revisions)
        for name in [name for name in self.revisions if name not in used]:
            if not self.revisions[name].stats.active:
                del self.revisions[name]

    # --- see revision.RevisionHost

    def track(self, revision: RevisionBackend) -> None:
        if not self.tracked:
            # Nothing happened before: the next report covers the time from now.
            self._reported = self.time()
            self._tracked.set()
            self._connected.set()
        revision.tracked = True
        self.tracked[revision] = None

    def new_endpoint(self, id_: str, host: str, port: int, limit: int) -> UpstreamEndpoint:
        return self.endpoint_factory(id_, host, port, limit, self._http2_pool)

    def other_node(self, node: str) -> str:
        return self.nodes.remote(node) if node else ""

    def new_remote_endpoint(self, revision: str, id_: str, node: str, limit: int) -> UpstreamEndpoint:
        return RemoteEndpoint(self.nodes, revision, id_, node, limit)

    def _slot_free(self, revision: str, instance: str) -> bool:
        """Another node has a free slot; returns whether a request was queued for it."""
        return revision in self.revisions and self.revisions[revision].instance_free(instance)

    def _nodes_changed(self) -> None:
        for revision in list(self.revisions.values()):
            revision.nodes_changed()

    def _http2_pool(self, dialer: Dialer) -> UpstreamPool:
        from activator.backend.http2_upstream import Http2Pool  # loaded at the first use: few services speak h2c

        return Http2Pool(dialer, self.new_codec)

    def poke(self, revision: str, waiting: int) -> None:
        """Tell the autoscaler that requests are queued: at once for the first, then when twice as many are."""
        at, reported = self._poked.get(revision, (0.0, 0))
        if self.now - at < POKE_SECONDS and waiting < 2 * reported:
            return
        self._poked[revision] = (self.now, waiting)
        node = self.nodes.name
        self.send_poke(Poke(activator=self.name, revision=revision, at=self.wall_clock(), waiting=waiting, node=node))

    def call_later(self, seconds: float, callback: Callable[[Backend], None], endpoint: Backend) -> None:
        self._loop.call_later(seconds, callback, endpoint)

    def announce_waiting(self, revision: str, waiting: bool) -> None:
        if self.other_workers is not None:
            self.other_workers.announce_waiting(revision, waiting)

    def offer_slot(self, revision: str, dispatch: Callable[[], None], hold: float) -> None:
        if self.other_workers is not None:
            self.other_workers.offer_slot(revision)
        if hold:
            self._loop.call_later(hold * (0.5 + random.random()), dispatch)  # noqa: S311 - no secret
        else:
            dispatch()

    def dispatch_queued(self, name: str) -> None:
        """Slots of a revision (of any, if `name` is empty) may have been released in another process."""
        named = self.revisions.get(name)
        for revision in [named] if named is not None else [] if name else list(self.tracked):
            revision.slot_released_elsewhere()

    # --- periodic work

    def start(self) -> None:
        """Start the periodic checks."""
        self._tasks = [asyncio.create_task(self._watch_deadlines()), asyncio.create_task(self._sweep_idle())]

    async def stop(self) -> None:
        """Abort all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self.connections):
            connection.abort()
        for revision in self.revisions.values():
            for endpoint in revision.endpoints.values():
                endpoint.retire()
        self.nodes.retire()

    async def drain(self, seconds: float) -> bool:
        """Close idle connections and wait for the others; returns whether all ended within `seconds`."""
        until = self.time() + seconds
        while self.connections and self.time() < until:
            for connection in list(self.connections):
                connection.retire()
            await asyncio.sleep(0.05)
        return not self.connections

    def first_request(self) -> None:
        """A request is added to `requests`, which was empty."""
        self._requested.set()

    def add_connection(self, connection: ClientConnection) -> None:
        """A client connected."""
        self.connections.add(connection)
        self._connected.set()

    async def until_tracked(self) -> None:
        """Wait until there is something to report."""
        if not self.tracked:
            self._tracked.clear()
            await self._tracked.wait()

    async def _watch_deadlines(self) -> None:
        while True:
            if not self.requests:
                self._requested.clear()
                await self._requested.wait()
            await asyncio.sleep(CHECK_SECONDS)
            now = self.now = self.time()
            for exchange in [each for each in self.requests if each.deadline <= now]:
                if exchange in self.requests:
                    try:
                        exchange.deadline_passed(now)
                    except Exception as error:
                        exchange.internal_error(error)
            if self.other_workers is not None:
                self.dispatch_queued("")

    async def _sweep_idle(self) -> None:
        while True:
            if not (self.connections or self.tracked):
                self._connected.clear()
                await self._connected.wait()
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.now = self.time()
            for connection in list(self.connections):
                try:
                    connection.sweep(now)
                except Exception as error:
                    report_error(connection, "sweep", error)
            for revision in self.tracked:
                for endpoint in revision.endpoints.values():
                    endpoint.sweep(now)
            self.nodes.sweep(now)

    def report(self, at: float) -> Report | None:
        """Return the report to the autoscaler about the time since the last one; None if there is nothing to report.

        Args:
            at: epoch seconds, now.
        """
        now, lines, draining, tunnels = self.time(), [], {}, {}
        # On the clock of the counts; otherwise a mean could exceed the maximum.
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
