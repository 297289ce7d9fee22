"""Publishes the endpoints of each Revision to activators, and its scale to the API."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.revisions.revision_status import scale_status
from knoll.concurrency.backoff import until_available
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.scale import ScaleStatus
from knoll.tables.protocol import Table


class EndpointPublisher:
    """What was published of all Revisions; only changes are written."""

    def __init__(
        self,
        endpoints: Table[RevisionEndpoints],
        scale: Table[ScaleStatus],
        scalers: Callable[[str], Sequence[RevisionScaler]],
        current: Mapping[str, RevisionScaler],
    ) -> None:
        """
        Args:
            scalers: returns all scalers under a Revision's key, `namespace/name`; an earlier Revision of that name may
                still have instances.
            current: scaler of the Revision that exists now, by key.
        """
        self._endpoints, self._scale, self._scalers, self._current = endpoints, scale, scalers, current
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._published: dict[str, tuple[RevisionEndpoints, ScaleStatus | None]] = {}

    async def publish(self, key: str) -> int:
        """Publish a Revision's endpoints, then its scale; returns the version of its endpoints.

        Raises:
            StoreUnavailableError: Redis is unavailable.
        """
        async with self._locks[key]:
            endpoints = [endpoint for scaler in self._scalers(key) for endpoint in scaler.endpoints().endpoints]
            entry = RevisionEndpoints(tuple(endpoints))
            current = self._current.get(key)
            status = scale_status(current) if current else None
            version = 0
            published = self._published.get(key)
            draining = any(endpoint.state == "draining" for endpoint in endpoints)
            if published is None or published[0] != entry or draining:
                version = await self._endpoints.put(key, entry)
            if status is not None and (published is None or published[1] != status):
                await self._scale.put(key, status)
            self._published[key] = (entry, status)
            return version

    async def publish_when_available(self, key: str) -> int:
        """Publish, however long Redis is unavailable; returns the version of the endpoints."""
        return await until_available(lambda: self.publish(key))

    async def remove(self, key: str) -> None:
        """Remove what was published of a Revision.

        Raises:
            StoreUnavailableError: Redis is unavailable.
        """
        async with self._locks[key]:
            await self._endpoints.remove(key)
            await self._scale.remove(key)
            self._published.pop(key, None)
        self._locks.pop(key, None)

    async def check(self) -> list[str]:
        """Read the tables; returns the Revisions whose entries differ from what was published.

        Raises:
            StoreUnavailableError: Redis is unavailable.
        """
        _, endpoints = await self._endpoints.snapshot()
        _, scales = await self._scale.snapshot()
        outdated = []
        for key, (entry, status) in self._published.items():
            stored, scale = endpoints.get(key), scales.get(key)
            if stored is None or stored[1] != entry or (status is not None and (scale is None or scale[1] != status)):
                outdated.append(key)
        return outdated

    def invalidate(self, key: str) -> None:
        """Write everything of a Revision at the next call of `publish`."""
        self._published.pop(key, None)
