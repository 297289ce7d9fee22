"""Runs the controllers and the owner garbage collector in the process that holds the lease; the wiring of both."""

import asyncio
import os
import socket
import time

import structlog

from api.controllers.engine.loop import Controllers
from api.controllers.engine.metrics import ControllerMetrics
from api.controllers.engine.tables import Tables
from api.controllers.gateway_publisher import GatewayPublisher
from api.controllers.nodes.node_sync import NodeSync, single_machine
from api.controllers.pods.knative_objects import ActivatorAddress
from api.controllers.pods.pod_sync import PodSync
from api.controllers.pods.quota_use import QuotaUse
from api.controllers.route.hosts import Naming
from knoll.builds.queue import JobQueue
from knoll.messages import builds, routing, scale
from knoll.messages.gateway_objects import GATEWAY_OBJECTS, GatewayObject
from knoll.messages.instances import INSTANCES, RevisionInstances
from knoll.messages.nodes import NODES, REMOVED_NODES, Node, RemovedNode
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient
from knoll.redis.lease import Lease
from knoll.redis.safety import unsafe_settings
from knoll.store.informer import Informer, Informers
from knoll.store.owner_gc import OwnerGarbageCollector
from knoll.store.protocol import Store
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds

log = structlog.get_logger()

LEASE = "controllers"
OWNERS_AND_OWNED = tuple(kind for kind in kinds.KINDS if kind.id != kinds.EVENT.id)
"""Kinds that the garbage collector follows: all but Events, which are many and have no owners."""
DECODED = 64
"""Objects of each kind that are kept decoded; enough for the Services that change at the same time."""


def tables_on(redis: RedisClient) -> Tables:
    """The tables that the controllers write or follow."""
    return Tables(
        routing=RedisTable(redis, routing.ROUTING, routing.RouteEntry),
        unresolved=RedisTable(redis, builds.UNRESOLVED, builds.Unresolved),
        resolutions=RedisTable(redis, builds.RESOLUTIONS, builds.Resolution),
        builds=RedisTable(redis, builds.BUILDS, builds.BuildProgress),
        scale=RedisTable(redis, scale.SCALE, scale.ScaleStatus),
    )


def own_hosts(settings: ApiSettings) -> frozenset[str]:
    """Hosts that belong to the platform itself."""
    listed = (settings.gateway_address, *settings.api_tls_names.split(","))
    return frozenset(host for name in listed if (host := name.strip().lower().rstrip(".")))


async def run(
    store: Store,
    redis: RedisClient,
    settings: ApiSettings,
    stop: asyncio.Event,
    metrics: ControllerMetrics | None = None,
) -> None:
    """Reconcile until `stop` is set.

    Args:
        store: shared with the API.
        redis: from `redis.client.connect`; the caller closes it.
        metrics: counts reconciliations.
    """
    queue = JobQueue(settings.redis_url)
    lease = Lease(redis, LEASE, f"{socket.gethostname()}/{os.getpid()}")

    tables = tables_on(redis)
    naming = Naming(port=settings.public_port, https_port=settings.public_https_port, reserved=own_hosts(settings))
    # Kept from one term of leadership to the next, which then looks only at what changed.
    controllers = Controllers(store, tables, queue, naming, metrics=metrics)

    epoch = redis.epoch

    async def lead() -> None:
        for problem in await unsafe_settings(redis):
            log.warning("redis may lose objects", problem=problem)
        nonlocal controllers, epoch
        version = (await store.list_packed(kinds.NAMESPACE.id)).version
        if version < controllers.version or redis.epoch != epoch:
            # Redis was restored from an older file, or another server became the primary: the state of the last term
            # is not valid any more.
            epoch = redis.epoch
            controllers = Controllers(store, tables, queue, naming, metrics=metrics)
        informers = Informers(store, [Informer(store, kind.id, decoded=DECODED) for kind in OWNERS_AND_OWNED])
        shown = RedisTable(redis, INSTANCES, RevisionInstances)
        published = RedisTable(redis, GATEWAY_OBJECTS, GatewayObject)
        gateway = ActivatorAddress(settings.gateway_address, settings.public_port)
        nodes, removed = RedisTable(redis, NODES, Node), RedisTable(redis, REMOVED_NODES, RemovedNode)
        single = None if settings.node else single_machine(redis, settings.gateway_address)
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run())
            group.create_task(OwnerGarbageCollector(store, list(informers)).run())
            group.create_task(controllers.run())
            group.create_task(GatewayPublisher(informers, published, settings.gateway_keyring).run())
            group.create_task(QuotaUse(store, informers, OWNERS_AND_OWNED).run())
            group.create_task(PodSync(store, informers, shown, tables.scale, gateway).run())
            group.create_task(NodeSync(store, informers, nodes, removed, time.time, single).run())

    work = asyncio.create_task(lease.lead(lead))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, stopping):
            task.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)
        await queue.close()
