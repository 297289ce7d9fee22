"""What a builder does in addition on one of several machines; not loaded on a single one."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import structlog
from starlette.routing import Route

from builder.images import other_engines
from builder.images.digest_resolver import DigestResolver
from builder.images.other_engines import OtherEngines
from builder.images.platform_registry import PlatformRegistry
from builder.maintenance import live_builders, pruning
from builder.maintenance.image_publisher import ImagePublisher
from builder.maintenance.leftovers import Leftovers
from builder.maintenance.pruning import Needs
from builder.maintenance.registry_keeper import RegistryKeeper
from knoll.process.settings import BuilderSettings
from knoll.redis.client import RedisClient
from knoll.redis.lease import Lease
from knoll.store.redis_store import RedisStore
from knoll.values.errors import KnollError

log = structlog.get_logger()

LEASE, LEASE_SECONDS = "digest-resolver", 3.0
PUBLISH_SECONDS = 30.0
"""Interval at which images that the platform's registry lacks are pushed to it."""


class OneOfSeveral:
    """The duties of one machine's builder."""

    def __init__(self, settings: BuilderSettings, redis: RedisClient) -> None:
        """Args: settings: with `node` and `registry`."""
        self._settings, self._redis = settings, redis
        self._others = OtherEngines(settings, redis)
        self.registry = PlatformRegistry(settings, redis, self._others)
        self.leftovers = Leftovers()
        self._publisher = ImagePublisher(settings, redis, self.registry)
        self._keeper = RegistryKeeper(settings, redis, Leftovers()) if settings.registry_url else None

    @property
    def routes(self) -> list[Route]:
        """What it serves to the builders of the other machines."""
        return other_engines.routes(self._settings, self.registry.push)

    def duties(self, resolver: DigestResolver) -> list[Coroutine[Any, Any, None]]:
        """Return what runs until it is cancelled."""
        lease = Lease(self._redis, LEASE, self._settings.node, ttl=LEASE_SECONDS)
        return [
            # Each machine would look up every Revision, and know another engine.
            lease.lead(resolver.run),
            self._publish(resolver),
            live_builders.keep(self._settings, socket.gethostname()),
        ]

    async def pruned(self, needs: Needs) -> None:
        """Called after a clean-up of this machine. Raises: RuntimeUnavailableError, StoreUnavailableError."""
        self._publisher.look_again()
        if self._keeper:
            await self._keeper.prune(needs.ids)

    async def close(self) -> None:
        await self._others.close()

    async def _publish(self, resolver: DigestResolver) -> None:
        store = RedisStore(self._redis, keyring=self._settings.keyring)
        while True:
            try:
                if self._keeper:
                    await self._keeper.record()
                await self._publisher.publish(await pruning.needs(self._redis, store, resolver.answers))
            except KnollError as error:
                log.warning("images not published yet", error=str(error))
            await asyncio.sleep(PUBLISH_SECONDS)
