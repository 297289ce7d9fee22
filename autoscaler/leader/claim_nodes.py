"""Which node holds the data of each PersistentVolumeClaim: Revisions that mount the claim run there."""

import asyncio
from collections.abc import Callable, Iterable

from autoscaler.link.outbox import Outbox
from knoll.messages.assignments import ClaimPlace
from knoll.tables.follower import follow_table
from knoll.tables.protocol import Table


class ClaimNodes:
    """The places of all claims of a platform, while this process leads."""

    def __init__(self, table: Table[ClaimPlace], uid_of: Callable[[str, str], str | None]) -> None:
        """Args: uid_of: returns the uid of a claim by namespace and name; None when it does not exist."""
        self._table, self._uid_of = table, uid_of
        self._places: dict[str, ClaimPlace] = {}
        self._outbox = Outbox(table)
        self._read = asyncio.Event()

    async def synced(self) -> None:
        """Wait until the places were read once."""
        await self._read.wait()

    def node_of(self, namespace: str, claims: Iterable[str]) -> str | None:
        """Return the node of the first claim that has one; None when there is none yet."""
        uids = (self._uid_of(namespace, name) for name in claims)
        places = (self._outbox.values.get(uid) or self._places.get(uid) for uid in uids if uid)
        return next((place.node for place in places if place is not None), None)

    def bound(self, namespace: str, claims: Iterable[str], node: str) -> None:
        """Record that an instance that mounts these claims runs on a node: their data will be there."""
        for name in claims:
            uid = self._uid_of(namespace, name)
            if uid and uid not in self._places:
                self._outbox.put(uid, ClaimPlace(node))

    async def run(self) -> None:
        """Follow and write the places until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_table(self._table, self._places, lambda _: None, self._read))
            tasks.create_task(self._outbox.run())
