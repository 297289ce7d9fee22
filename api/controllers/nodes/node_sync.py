"""Keeps the Node objects up to date with what the machines report.

A platform on a single machine has one Node, which this process describes itself: the API runs on that machine.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

import structlog

from api.controllers.nodes import node_objects
from api.controllers.reconciler import objects
from knoll import __version__
from knoll.concurrency.backoff import Backoff, until_available
from knoll.concurrency.pending_keys import PendingKeys
from knoll.messages.nodes import Node, RemovedNode
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.store.informer import Informers, ObjectChange
from knoll.store.protocol import Store
from knoll.tables.follower import follow_table
from knoll.tables.protocol import Table
from knoll.values import kinds
from knoll.values.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    StoreForbiddenError,
    StoreUnavailableError,
)
from knoll.values.node import NODE

log = structlog.get_logger()

BATCH_SECONDS = 0.1
"""How long changes are collected before they are handled, in seconds."""
CHECK_SECONDS = 10.0
"""Interval at which a single machine's autoscaler is checked, in seconds."""


def this_machine(address: str) -> Node:
    """Describe the only machine of a platform."""
    return Node(
        name=NODE,
        address=address,
        relay_port=0,
        admin_port=0,
        cores=float(os.cpu_count() or 1),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        version=f"v{__version__}",
    )


class NodeSync:
    """Synchronizes all Nodes while this process leads; `run` ends when it is cancelled."""

    def __init__(
        self,
        store: Store,
        informers: Informers,
        nodes: Table[Node],
        removed: Table[RemovedNode],
        clock: Callable[[], float],
        single: Callable[[], Awaitable[Node | None]] | None = None,
    ) -> None:
        """
        Args:
            informers: run by the caller; Nodes must be among them.
            nodes: what the machines report.
            removed: machines whose Node was deleted while they ran; kept for the next leader.
            clock: returns epoch seconds.
            single: returns the only machine, None while its autoscaler does not run; None with several machines.
        """
        self._store, self._informers, self._clock = store, informers, clock
        self._table, self._removed = nodes, removed
        self._single = single
        self._entries: dict[str, Node] = {}
        self._deleted: dict[str, float] = {}
        """By name: `Node.started` of machines that ran when their Node was deleted; see `RemovedNode`."""
        self._pending = PendingKeys[str](BATCH_SECONDS)

    async def run(self) -> None:
        await self._informers.synced()
        async with asyncio.TaskGroup() as tasks:
            if self._single is None:
                await until_available(self._read_removed, "removed nodes not read yet")
                ready = asyncio.Event()
                tasks.create_task(follow_table(self._table, self._entries, self._pending.mark, ready))
                await ready.wait()
            else:
                tasks.create_task(self._check_single())
            self._informers[kinds.NODE.id].subscribe(self._object_changed)
            await self._work()

    async def _read_removed(self) -> None:
        try:
            _, removed = await self._removed.snapshot()
        except StoreForbiddenError as error:
            # During an upgrade, until Redis has the permissions of this version.
            log.warning("removed nodes not read", error=str(error))
        else:
            self._deleted = {name: entry.started for name, (_, entry) in removed.items()}

    async def _keep_removed(self, name: str) -> None:
        """Record for the next leader whether the machine of a deleted Node still runs."""
        try:
            if (started := self._deleted.get(name)) is not None:
                await self._removed.put(name, RemovedNode(started))
            else:
                await self._removed.remove(name)
        except StoreForbiddenError as error:
            log.warning("removed node not recorded", node=name, error=str(error))

    def _object_changed(self, notice: ObjectChange) -> None:
        name = (notice.new or notice.old or {})["metadata"]["name"]
        entry = self._entries.get(name)
        if notice.new is None and entry is not None and self._single is None:
            # As in Kubernetes, a machine registers when its process starts: one that was removed stays away.
            self._deleted[name] = entry.started
        self._pending.mark(name)

    async def _check_single(self) -> None:
        assert self._single is not None
        while True:
            try:
                entry = await self._single()
            except StoreUnavailableError:
                pass
            else:
                before = self._entries.get(NODE)
                self._entries = {NODE: entry} if entry is not None else {}
                if before != entry:
                    self._pending.mark(NODE)
            await asyncio.sleep(CHECK_SECONDS)

    async def _work(self) -> None:
        backoff = Backoff()
        while True:
            for name in await self._pending.batch():
                try:
                    await self._sync(name)
                    backoff.reset()
                except (AlreadyExistsError, ConflictError, NotFoundError):
                    self._pending.mark(name)  # the informer is behind the store
                except StoreUnavailableError as error:
                    log.warning("node not updated", node=name, error=str(error))
                    self._pending.mark(name)
                    await backoff.wait()

    async def _sync(self, name: str) -> None:
        before = self._informers[kinds.NODE.id].get("", name)
        entry = self._entries.get(name)
        if before is not None and objects.deleting(before):
            return
        if entry is None and (name == NODE) is not (self._single is not None) and before is not None:
            # The platform was changed from one machine to several, or back.
            await self._store.delete(kinds.NODE.id, "", name, uid=before["metadata"]["uid"])
            return
        body = node_objects.node(entry, before, self._clock())
        if body is None or body == before:
            return
        if before is None and entry is not None and self._deleted.get(name) == entry.started:
            await self._keep_removed(name)
            return
        if before is None:
            if self._deleted.pop(name, None) is not None:
                await self._keep_removed(name)
            await self._store.create(kinds.NODE.id, objects.with_identity(body, self._clock()))
            log.info("node added", node=name)
        else:
            await self._store.update(kinds.NODE.id, body, before=before)
            if node_objects.is_ready(body) is not node_objects.is_ready(before):
                log.info("node changed", node=name, ready=node_objects.is_ready(body))


def single_machine(redis: RedisClient, address: str) -> Callable[[], Awaitable[Node | None]]:
    """Return the check of a platform on one machine: its autoscaler runs if its lease is held."""

    async def check() -> Node | None:
        holder = await redis.execute("GET", keys.lease("autoscaler"))
        return None if holder is None else this_machine(address)

    return check
