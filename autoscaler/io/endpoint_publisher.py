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
    """Publishes the endpoints and the scale of all Revisions; writes only changes."""

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
        self._versions = (0, 0)
        """Versions of both tables up to which every change is known to be ours."""

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
                self._written(version, 0)
            if status is not None and (published is None or published[1] != status):
                self._written(0, await self._scale.put(key, status))
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
            self._written(await self._endpoints.remove(key), 0)
            self._written(0, await self._scale.remove(key))
            self._published.pop(key, None)
        self._locks.pop(key, None)

    async def check(self) -> list[str]:
        """Read the tables, unless only this process has changed them; returns the Revisions whose entries differ.

        Raises:
            StoreUnavailableError: Redis is unavailable.
        """
        if self._versions == (await self._endpoints.version(), await self._scale.version()):
            return []
        endpoints_version, endpoints = await self._endpoints.snapshot()
        scale_version, scales = await self._scale.snapshot()
        outdated = []
        for key, (entry, status) in self._published.items():
            stored, scale = endpoints.get(key), scales.get(key)
            if stored is None or stored[1] != entry or (status is not None and (scale is None or scale[1] != status)):
                outdated.append(key)
        self._versions = (endpoints_version, scale_version)
        return outdated

    def _written(self, endpoints: int, scale: int) -> None:
        self._versions = (max(self._versions[0], endpoints), max(self._versions[1], scale))

    def invalidate(self, key: str) -> None:
        """Write everything of a Revision at the next call of `publish`."""
        self._published.pop(key, None)
