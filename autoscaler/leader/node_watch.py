"""Follows the nodes of a platform, and which of them respond."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from autoscaler.decision.node_presence import Presence, presence
from knoll.messages.nodes import DEAD_SECONDS, Node, node_of_follower
from knoll.redis.heartbeats import Heartbeats
from knoll.tables.follower import follow_table
from knoll.tables.protocol import Table
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()

POLL_SECONDS = 0.5
FORGET_SECONDS = 3600.0
"""A node without heartbeats for longer than this is forgotten, together with its reports."""


class NodeObserver(Protocol):
    """Called when nodes stop or start to respond."""

    def node_lost(self, node: str) -> None:
        """A node has stopped responding."""
        ...

    def node_absent(self, node: str) -> None:
        """The process of a node has stopped responding; its machine runs."""
        ...

    def node_returned(self, node: str) -> None:
        """A node responds again, also its process alone, or is new."""
        ...

    def node_forgotten(self, node: str) -> None:
        """A node has not responded for FORGET_SECONDS."""
        ...


class NodeWatch:
    """All nodes, while this process leads. The node of this process always responds."""

    def __init__(
        self,
        heartbeats: Heartbeats,
        nodes: Table[Node],
        activators: Callable[[], Awaitable[Mapping[str, float]]],
        own: str,
        is_steady: Callable[[], bool],
    ) -> None:
        """
        Args:
            activators: returns the seconds since the last acknowledgement of each activator.
            own: name of the node in this process.
            is_steady: returns whether this process's own heartbeats have reached Redis lately; otherwise no node is
                declared lost.
        """
        self._heartbeats, self._table, self._activators = heartbeats, nodes, activators
        self._own, self._is_steady = own, is_steady
        self._observer: NodeObserver | None = None
        self.nodes: dict[str, Node] = {}
        """By name: the entries of nodes that respond, and of those that were lost a moment ago."""
        self._alive: set[str] = {own}
        """Those that are not lost."""
        self._absent: set[str] = set()
        """Those of them whose process is away."""
        self._read, self._polled = asyncio.Event(), asyncio.Event()

    def responds(self, node: str) -> bool:
        """Return whether a node responds, or only its process is away."""
        return node in self._alive

    def alive(self) -> list[str]:
        """Return the names of the nodes that respond, or whose process alone is away."""
        return sorted(self._alive)

    def memory_bytes(self) -> int:
        """Return the memory of all nodes that respond, in bytes."""
        return sum(node.memory_bytes for name, node in self.nodes.items() if name in self._alive)

    async def synced(self) -> None:
        """Wait until it is known which nodes respond."""
        await self._polled.wait()

    def begin(self, observer: NodeObserver) -> None:
        """Report changes from now on."""
        self._observer = observer

    async def run(self) -> None:
        """Follow the nodes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_table(self._table, self.nodes, lambda _: None, self._read))
            await self._read.wait()
            while True:
                try:
                    await self._poll()
                except (StoreUnavailableError, StoreForbiddenError) as error:
                    log.warning("heartbeats not read", error=str(error))
                await asyncio.sleep(POLL_SECONDS)

    async def _poll(self) -> None:
        ages = await self._heartbeats.ages()
        silent = {node for node in {*self.nodes, *ages} if ages.get(node, DEAD_SECONDS) >= DEAD_SECONDS}
        absent = await self._away(silent & self.nodes.keys() - {self._own}, ages)
        silent -= absent
        for node in self.nodes.keys() & ages.keys() - silent - absent:
            if node not in self._alive or node in self._absent:
                self._returned(node)
        for node in absent - self._absent:
            self._left(node, ages[node])
        if self._is_steady():
            for node in (silent & {*self.nodes, *self._alive}) - {self._own}:
                await self._lost(node)
            for node in [node for node, age in ages.items() if age > FORGET_SECONDS and node != self._own]:
                await self._heartbeats.forget(node)
                if self._observer is not None:
                    self._observer.node_forgotten(node)
            self._polled.set()
        elif not self._polled.is_set():
            # There is no record of earlier heartbeats: nodes in the table count as responding for now.
            self._alive |= self.nodes.keys()
            self._polled.set()

    async def _away(self, silent: set[str], ages: Mapping[str, float]) -> set[str]:
        """Return the nodes among silent ones whose process alone is away."""
        if not silent:
            return set()
        activators: dict[str, float] = {}
        for follower, age in (await self._activators()).items():
            node = node_of_follower(follower)
            activators[node] = min(age, activators.get(node, age))
        return {node for node in silent if presence(ages.get(node), activators.get(node)) is Presence.ABSENT}

    def _left(self, node: str, seconds: float) -> None:
        self._alive.add(node)
        self._absent.add(node)
        log.warning("autoscaler of node does not respond, its instances are kept", node=node, seconds=round(seconds, 1))
        if self._observer is not None:
            self._observer.node_absent(node)

    def _returned(self, node: str) -> None:
        self._alive.add(node)
        self._absent.discard(node)
        log.info("node responds", node=node)
        if self._observer is not None:
            self._observer.node_returned(node)

    async def _lost(self, node: str) -> None:
        responded = node in self._alive
        self._alive.discard(node)
        self._absent.discard(node)
        if responded:
            log.warning("node does not respond", node=node, seconds=DEAD_SECONDS)
            if self._observer is not None:
                self._observer.node_lost(node)
        if node in self.nodes:
            await self._table.remove(node)
