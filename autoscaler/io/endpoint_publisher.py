"""Tells activators the endpoints of each Revision, and the API its scale."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from autoscaler.node.retry import patiently
from autoscaler.revisions.revision_scaler import Scaler
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.scale import ScaleStatus
from knoll.tables.protocol import Table


class Publishing:
    """What was said of all Revisions; only what is new is said again."""

    def __init__(
        self,
        endpoints: Table[RevisionEndpoints],
        scale: Table[ScaleStatus],
        of: Callable[[str], Sequence[Scaler]],
        current: Mapping[str, Scaler],
    ) -> None:
        """
        Args:
            of: all scalers under a Revision's key, `namespace/name`; those of earlier ones of its name still end.
            current: that of the Revision which is there now.
        """
        self._endpoints, self._scale, self._of, self._current = endpoints, scale, of, current
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._said: dict[str, tuple[RevisionEndpoints, ScaleStatus | None]] = {}

    async def publish(self, key: str) -> int:
        """Put a Revision's endpoints, then its scale; returns the version of its endpoints.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        async with self._locks[key]:
            found = [one for scaler in self._of(key) for one in scaler.endpoints().endpoints]
            endpoints = RevisionEndpoints(tuple(found))
            current = self._current.get(key)
            status = current.status() if current else None
            version = 0
            said = self._said.get(key)
            if said is None or said[0] != endpoints or any(one.state == "draining" for one in found):
                version = await self._endpoints.put(key, endpoints)
            if status is not None and (said is None or said[1] != status):
                await self._scale.put(key, status)
            self._said[key] = (endpoints, status)
            return version

    async def surely(self, key: str) -> int:
        """The same, however long it takes."""
        return await patiently(lambda: self.publish(key))

    async def remove(self, key: str) -> None:
        """A Revision is gone.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        async with self._locks[key]:
            await self._endpoints.remove(key)
            await self._scale.remove(key)
            self._said.pop(key, None)
        self._locks.pop(key, None)

    async def check(self) -> list[str]:
        """Look what the tables hold; returns the Revisions of which they say something else than was said.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        _, endpoints = await self._endpoints.snapshot()
        _, scales = await self._scale.snapshot()
        lost = []
        for key, (said, status) in self._said.items():
            there, scale = endpoints.get(key), scales.get(key)
            if there is None or there[1] != said or (status is not None and (scale is None or scale[1] != status)):
                lost.append(key)
        return lost

    def doubt(self, key: str) -> None:
        """Say everything of a Revision anew at the next time."""
        self._said.pop(key, None)
