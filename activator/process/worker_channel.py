"""A worker's line to its parent: JSON lines over a socket pair.

Worker to parent: `{"ready": true}`, `{"wants": revision, "waiting": bool}`, `{"freed": revision}`,
`{"metrics": families}`. Parent to worker: the same `wants` and `freed` of the other workers, `{"metrics": true}`
to ask, `{"lost": worker}`. When the parent is gone, so is the worker: somebody else starts both again.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from activator.backend.shared_slots import SharedEndpoint
from activator.process import metrics
from activator.routing.proxy_state import ProxyState

LIMIT = 64 * 1024 * 1024
"""Bytes of one line."""


class WorkerChannel:
    """The worker's end."""

    def __init__(self, proxy: ProxyState, line: socket.socket, slots: int, stop: Callable[[], None]) -> None:
        """
        Args:
            line: connected to the parent.
            slots: descriptor of the shared slots.
            stop: ends this worker.
        """
        self._proxy = proxy
        self._socket = line
        self._stop = stop
        self._writer: asyncio.StreamWriter | None = None
        self._wanting: dict[str, set[int]] = {}
        proxy.endpoint_factory = partial(SharedEndpoint, slots)
        proxy.tell_others = lambda revision, waiting: self._say(wants=revision, waiting=waiting)
        proxy.freed = lambda revision: self._say(freed=revision)
        proxy.shared = True

    async def run(self, ready: asyncio.Event) -> None:
        """Until the parent is gone. Args: ready: set once requests can be taken."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=LIMIT)
        await ready.wait()
        self._say(ready=True)
        while line := await reader.readline():
            self._hear(json.loads(line))
        self._stop()

    def _say(self, **message: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    def _hear(self, message: dict[str, Any]) -> None:
        if "metrics" in message:
            self._say(metrics=metrics.plain(self._proxy))
        elif "wants" in message:
            self._others_want(message["wants"], message["worker"], message["waiting"])
        elif "freed" in message:
            self._proxy.dispatch_queued(message["freed"])
        elif "lost" in message:
            for name in list(self._wanting):
                self._others_want(name, message["lost"], False)
            self._proxy.dispatch_queued("")

    def _others_want(self, name: str, worker: int, waiting: bool) -> None:
        wanting = self._wanting.setdefault(name, set())
        if waiting:
            wanting.add(worker)
            # A slot may have become free after the other looked and before we knew that it waits.
            self._say(freed=name)
        else:
            wanting.discard(worker)
        revision = self._proxy.revisions.get(name)
        if revision is not None:
            revision.awaited_by_others = bool(wanting)
        if not wanting:
            del self._wanting[name]
