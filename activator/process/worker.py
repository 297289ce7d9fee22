"""One worker process: tables, reports, ports, and a graceful shutdown."""

import asyncio
import contextlib
import gc
import os
import socket
from dataclasses import dataclass
from typing import Self

import structlog

from activator.frontend import listeners
from activator.process import metrics
from activator.process.relay import Relay
from activator.process.worker_channel import WorkerChannel
from activator.routing.proxy_state import ProxyState
from activator.sync import table_followers
from activator.sync.config_watch import ConfigWatch
from activator.sync.reporter import Reporter
from activator.sync.request_log import RequestLog
from activator.wire import http2_codecs
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.gateway_objects import GATEWAY_OBJECTS, GatewayObject
from knoll.messages.nodes import NODES, Node, follower_name
from knoll.messages.routing import ROUTING, RouteEntry
from knoll.process import admin
from knoll.process.settings import ActivatorSettings
from knoll.redis.client import connected
from knoll.tables.gateway_objects import GatewaySource
from knoll.tables.redis_tables import RedisTable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ListeningSockets:
    """Listening sockets, by the gateway that they belong to."""

    public: list[socket.socket]
    local: list[socket.socket]
    """Sockets of the gateway for cluster-local hosts."""
    tls: list[socket.socket]
    relay: list[socket.socket]
    """Sockets for other nodes."""

    @property
    def kinds(self) -> tuple[list[socket.socket], ...]:
        return self.public, self.local, self.tls, self.relay

    @property
    def all(self) -> list[socket.socket]:
        return [each for kind in self.kinds for each in kind]

    def duplicate(self) -> "ListeningSockets":
        """More sockets on the same ports, for another process."""
        return ListeningSockets(*([listeners.bind_again(each) for each in kind] for kind in self.kinds))

    def numbers(self) -> str:
        """Return their descriptors, for `inherited`."""
        return ";".join(",".join(str(each.fileno()) for each in kind) for kind in self.kinds)

    @classmethod
    def inherited(cls, numbers: str) -> Self:
        """Return the sockets that the parent process opened."""
        return cls(*(
            [socket.socket(fileno=int(number)) for number in kind.split(",") if number] for kind in numbers.split(";")
        ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class ParentResources:
    """What a worker gets from its parent."""

    channel: socket.socket
    slots: int
    """Descriptor of the shared slots."""


async def run(
    settings: ActivatorSettings, ports: ListeningSockets, stop: asyncio.Event, parent: ParentResources | None = None
) -> None:
    """Serve requests until `stop` is set, then drain.

    Args:
        parent: None for a single process, which has the admin port itself.
    """
    proxy = ProxyState(follower_name(settings.node, f"{socket.gethostname()}-{os.getpid()}"))
    # Streams are read without a pause: a request may wait for the next endpoint.
    async with connected(settings.redis_url, "knoll-activator", gather_seconds=0.0) as redis:
        routing, endpoints = RedisTable(redis, ROUTING, RouteEntry), RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        followers = table_followers.followers(proxy, routing, endpoints)
        published = RedisTable(redis, GATEWAY_OBJECTS, GatewayObject)
        source = GatewaySource(published, settings.gateway_keyring)
        request_log = RequestLog(redis)
        configured = ConfigWatch(proxy, source, tls=bool(ports.tls), keep_line=request_log.keep)
        proxy.new_codec = http2_codecs.named(settings.activator_http2)
        proxy.overload_status = settings.activator_overload_status
        listening, ready, ending = listeners.Listeners(proxy), asyncio.Event(), asyncio.Event()

        async def missing() -> str:
            return "" if ready.is_set() else "waiting for the routing and endpoint tables in Redis"

        works = [*(follower.run() for follower in followers), Reporter(proxy, redis, settings.report_seconds).run()]
        works += [configured.run(), request_log.run()]
        proxy.nodes.name = settings.node
        relay = None
        if settings.node and settings.node_dir is not None:
            # Without a relay port, this activator still reaches the other nodes.
            relay = Relay(proxy, settings.node_dir, RedisTable(redis, NODES, Node))
            works += relay.works()
        if parent is None:
            if (names := table_followers.dns_hosts_follower(settings, routing)) is not None:
                works.append(names.run())
            app = admin.app(missing, metrics=lambda: metrics.exposition(metrics.worker_counts(proxy)))
            last = admin.serve(app, settings.admin_host, settings.activator_admin_port, ending)
        else:
            last = WorkerChannel(proxy, parent.channel, parent.slots, stop.set).run(ready)
        background = [asyncio.create_task(work) for work in (*works, last)]
        for task in background:  # a task that fails ends the process; its supervisor restarts it
            task.add_done_callback(lambda _: stop.set())
        proxy.start()
        opening = asyncio.create_task(_open(followers, listening, ports, configured, relay, ready))
        await stop.wait()
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        listening.close()
        if relay is not None:
            await relay.close()
        if not await proxy.drain(settings.drain_seconds):
            log.warning("requests aborted", connections=len(proxy.connections))
        await proxy.stop()
        ending.set()
        await _end(background, wait_for_last=parent is None)


async def _open(
    followers: list[table_followers.TableFollower],
    listening: listeners.Listeners,
    ports: ListeningSockets,
    configured: ConfigWatch,
    relay: Relay | None,
    ready: asyncio.Event,
) -> None:
    """Accept requests once the tables have been read: earlier requests wait in the kernel instead of getting a 404."""
    numbers = [each.getsockname()[1] for each in ports.all]
    for follower in followers:
        await follower.synced.wait()
    await listening.open(ports.public)
    await listening.open(ports.local, local=True)
    if ports.tls:
        await listening.open(ports.tls, tls=configured.tls)
    if relay is not None:
        relay.open(ports.relay)
    log.info("activator ready", ports=numbers)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    ready.set()


async def _end(tasks: list[asyncio.Task[None]], wait_for_last: bool) -> None:
    if wait_for_last:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(tasks[-1]), 6)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
