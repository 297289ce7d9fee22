"""A worker's channel to its parent: JSON lines over a socket pair.

Worker to parent: `{"ready": true}`, `{"wants": revision, "waiting": bool}`, `{"freed": revision}`,
`{"metrics": families}`. Parent to worker: the same `wants` and `freed` of the other workers, `{"metrics": true}`
to request metrics, `{"lost": worker}`. A worker ends when its parent has ended; a supervisor restarts both.
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
    """The worker's end; implements `proxy_state.OtherWorkers`."""

    def __init__(self, proxy: ProxyState, channel: socket.socket, slots: int, stop: Callable[[], None]) -> None:
        """
        Args:
            channel: connected to the parent.
            slots: descriptor of the shared slots.
            stop: ends this worker.
        """
        self._proxy = proxy
        self._socket = channel
        self._stop = stop
        self._writer: asyncio.StreamWriter | None = None
        self._waiting_workers: dict[str, set[int]] = {}
        proxy.endpoint_factory = partial(SharedEndpoint, slots)
        proxy.other_workers = self

    def announce_waiting(self, revision: str, waiting: bool) -> None:
        """See `OtherWorkers`."""
        self._send(wants=revision, waiting=waiting)

    def offer_slot(self, revision: str) -> None:
        """See `OtherWorkers`."""
        self._send(freed=revision)

    async def run(self, ready: asyncio.Event) -> None:
        """Run until the parent has ended. Args: ready: set once requests can be accepted."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=LIMIT)
        await ready.wait()
        self._send(ready=True)
        while line := await reader.readline():
            self._handle(json.loads(line))
        self._stop()

    def _send(self, **message: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    def _handle(self, message: dict[str, Any]) -> None:
        if "metrics" in message:
            self._send(metrics=metrics.worker_counts(self._proxy))
        elif "wants" in message:
            self._set_waiting(message["wants"], message["worker"], message["waiting"])
        elif "freed" in message:
            self._proxy.dispatch_queued(message["freed"])
        elif "lost" in message:
            for name in list(self._waiting_workers):
                self._set_waiting(name, message["lost"], False)
            self._proxy.dispatch_queued("")

    def _set_waiting(self, name: str, worker: int, waiting: bool) -> None:
        waiting_workers = self._waiting_workers.setdefault(name, set())
        if waiting:
            waiting_workers.add(worker)
            # A slot may have been released here between the other worker's attempt and its message.
            self._send(freed=name)
        else:
            waiting_workers.discard(worker)
        revision = self._proxy.revisions.get(name)
        if revision is not None:
            revision.set_awaited_by_workers(bool(waiting_workers))
        if not waiting_workers:
            del self._waiting_workers[name]
