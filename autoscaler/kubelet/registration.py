"""Keeps this node's entry in the table of nodes, and its heartbeat, and notices another process with its name."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from knoll.concurrency.backoff import until_available
from knoll.messages.nodes import DEAD_SECONDS, Node
from knoll.redis.heartbeats import INTERVAL_SECONDS, Heartbeats
from knoll.tables.protocol import Table
from knoll.values import versions
from knoll.values.errors import KnollError, StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()

POLL_SECONDS = 0.5
LEAVE_SECONDS = 1.0
"""Longest time that the end of this process waits for Redis."""


class NodeNameTakenError(KnollError):
    """Another process has registered under the name of this node."""

    code, reason = 409, "NodeNameTaken"


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """The process of a node, as others can tell it from a second one with the same name."""

    node: str
    host: str
    """Its host name; a container keeps it when it is restarted."""
    address: str

    def conflict(self, other: Node) -> str:
        """Describe that another process has the name."""
        return (
            f"two machines have the name {self.node}: this process runs on host {self.host} at {self.address}, the "
            f"other one on host {other.process} at {other.address}; set another KNOLL_NODE on one of them"
        )


class NodeRegistration:
    """This node's registration with the platform."""

    def __init__(
        self, heartbeats: Heartbeats, nodes: Table[Node], entry: Callable[[], Node], own: NodeProcess | None = None
    ) -> None:
        """
        Args:
            entry: returns the present entry of this node.
            own: this process; None if its name is not compared.
        """
        self._heartbeats, self._nodes, self._entry, self._own = heartbeats, nodes, entry, own
        self.problem = ""
        """Why this node may not be in the cluster; empty if it may, and before that was checked."""
        self.admitted = asyncio.Event()
        """Set when this node's version was compared with those of the others, and it may be in the cluster."""
        self._written: Node | None = None
        self._since = float("inf")
        self._decode = msgspec.json.Decoder(Node).decode

    def is_steady(self) -> bool:
        """Return whether every heartbeat of the last DEAD_SECONDS reached Redis.

        If so, missing heartbeats of another node are not caused by this process or its connection.
        """
        return asyncio.get_running_loop().time() - self._since >= DEAD_SECONDS

    async def claim(self) -> None:
        """Wait until no other process that responds has the name of this node."""
        reported = ""
        while (other := await until_available(self._other, "nodes not read yet")) is not None:
            assert self._own is not None
            if (conflict := self._own.conflict(other)) != reported:
                log.error("node name taken, waiting", conflict=conflict)
                reported = conflict
            await asyncio.sleep(POLL_SECONDS)

    async def _other(self) -> Node | None:
        if self._own is None:
            return None
        _, entries = await self._nodes.snapshot()
        _, entry = entries.get(self._own.node, (0, None))
        if entry is None or entry.process in ("", self._own.host):
            return None
        ages = await self._heartbeats.ages()
        return entry if ages.get(self._own.node, DEAD_SECONDS) < DEAD_SECONDS else None

    async def run(self) -> None:
        """Send heartbeats until cancelled; none is sent while Redis is unavailable.

        Raises: NodeNameTakenError: another process has registered under this name since.
        """
        clock = asyncio.get_running_loop().time
        try:
            while True:
                try:
                    async with asyncio.timeout(INTERVAL_SECONDS):
                        if self.admitted.is_set() or await self._is_admitted():
                            await self._beat()
                            self._since = min(self._since, clock())
                except (StoreUnavailableError, TimeoutError):
                    self._since = float("inf")
                except StoreForbiddenError as error:
                    # During an upgrade, until Redis has the permissions of this version.
                    self._since = float("inf")
                    log.warning("node not registered yet", error=str(error))
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            await self._leave()

    async def _beat(self) -> None:
        stored = await self._heartbeats.beat(self._entry().name)
        entry = self._entry()
        if stored is not None and self._written is not None and self._own is not None:
            other = self._decode(stored)
            if other.process not in ("", self._own.host):
                self._written = None
                raise NodeNameTakenError(self._own.conflict(other))
        if stored is None or entry != self._written:
            await self._nodes.put(entry.name, entry)
            self._written = entry
            log.info("node registered", node=entry.name)

    async def _leave(self) -> None:
        """Let the next process of this node begin at once: it may have another host name."""
        if self._written is None or not self._written.process:
            return
        with contextlib.suppress(StoreUnavailableError, StoreForbiddenError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._nodes.put(self._written.name, msgspec.structs.replace(self._written, process=""))

    async def _is_admitted(self) -> bool:
        """Compare this node's version with those of the nodes that respond: it must not differ by more than one."""
        own = self._entry()
        ages, (_, entries) = await self._heartbeats.ages(), await self._nodes.snapshot()
        others = {
            name: entry.version
            for name, (_, entry) in entries.items()
            if name != own.name and ages.get(name, DEAD_SECONDS) < DEAD_SECONDS
        }
        problem = versions.problem(own.version, others)
        if problem and problem != self.problem:
            log.error("node refused", node=own.name, reason=problem)
        self.problem = problem
        if not problem:
            self.admitted.set()
        return not problem
