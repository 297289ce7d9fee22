"""Publishes the endpoints of each Revision to activators, and its scale to the API."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.revisions.revision_status import scale_status
from knoll.concurrency.backoff import until_available
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.scale import ScaleStatus
from knoll.tables.protocol import Table


class _Published(NamedTuple):
    """The entries of one Revision that were last written."""

    endpoints: RevisionEndpoints
    version: int
    """Version of the endpoints."""
    scale: ScaleStatus | None


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
        self._published: dict[str, _Published] = {}
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
            published = self._published.get(key)
            changed = status if published is None or published.scale != status else None
            if published is not None and published.endpoints == entry:
                version = published.version
                if changed is not None:
                    await self._put_scale(key, changed)
            elif changed is not None:
                # Sent together, in this order: Redis then syncs its append-only file once for both.
                version, _ = await asyncio.gather(self._put_endpoints(key, entry), self._put_scale(key, changed))
            else:
                version = await self._put_endpoints(key, entry)
            self._published[key] = _Published(entry, version, status)
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
        for key, (entry, _, status) in self._published.items():
            stored, scale = endpoints.get(key), scales.get(key)
            if stored is None or stored[1] != entry or (status is not None and (scale is None or scale[1] != status)):
                outdated.append(key)
        self._versions = (endpoints_version, scale_version)
        return outdated

    async def _put_endpoints(self, key: str, entry: RevisionEndpoints) -> int:
        version = await self._endpoints.put(key, entry)
        self._written(version, 0)
        return version

    async def _put_scale(self, key: str, status: ScaleStatus) -> None:
        self._written(0, await self._scale.put(key, status))

    def _written(self, endpoints: int, scale: int) -> None:
        self._versions = (max(self._versions[0], endpoints), max(self._versions[1], scale))

    def invalidate(self, key: str) -> None:
        """Write everything of a Revision at the next call of `publish`."""
        self._published.pop(key, None)
