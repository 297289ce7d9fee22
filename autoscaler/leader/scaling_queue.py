"""Revisions that need attention. Requests for one Revision coalesce until its turn comes.

Not a `knoll.concurrency.pending_keys.PendingKeys`: each key carries whether a decision is needed.
"""

import asyncio


class ScalingQueue:
    """Revisions by `namespace/name`."""

    def __init__(self) -> None:
        self._due: dict[str, bool] = {}
        self._wake = asyncio.Event()

    def mark(self, key: str, *, decide_first: bool = True) -> None:
        """Request attention for a Revision.

        Args:
            decide_first: its scale has to be decided; False when only an instance has changed.
        """
        self._due[key] = decide_first or self._due.get(key, False)
        self._wake.set()

    async def take(self) -> dict[str, bool]:
        """Wait for work; returns Revision to `decide_first`."""
        await self._wake.wait()
        self._wake.clear()
        due, self._due = self._due, {}
        return due
