"""Writes that replicas must have before they are acknowledged.

They are sent in batches on their own connection. `WAIT` blocks the connection until the replicas have all writes that
were sent on it before. One `WAIT` confirms all writes of a batch, and reads, on another connection, do not wait for it.
Writes that arrive meanwhile form the next batch.

Source: https://redis.io/docs/latest/commands/wait/
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from knoll.redis.connection import RedisConnection, Reply, packed
from knoll.values.errors import StoreUnavailableError

WAIT_MILLISECONDS = 500
"""How long replicas may take to confirm a batch."""

_Waiting = tuple[bytes, "asyncio.Future[Reply]"]


class AcknowledgedWrites:
    """The writes of one process on one connection."""

    def __init__(self, connection: RedisConnection, replicas: int) -> None:
        """Args: replicas: how many must have a write; 0 sends each write at once and waits for none."""
        self.connection = connection
        self._replicas = replicas
        self._wait = packed("WAIT", replicas, WAIT_MILLISECONDS)
        self._next: list[_Waiting] = []
        self._busy = False

    def submit(self, command: bytes) -> "asyncio.Future[Reply]":
        """Send a command; returns a future of its reply.

        The future raises StoreUnavailableError also when too few replicas confirmed it: whether the write will last is
        unknown then.
        """
        if not self._replicas:
            return self.connection.submit(command)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._next.append((command, reply))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._send)
        return reply

    def _send(self) -> None:
        batch, self._next = self._next, []
        try:
            replies = [self.connection.submit(command) for command, _ in batch]
            count = self.connection.submit(self._wait)
        except StoreUnavailableError as error:
            self._busy = False
            for _, waiting in batch:
                _fail(waiting, str(error))
            return
        count.add_done_callback(partial(self._confirm, [waiting for _, waiting in batch], replies))

    def _confirm(
        self,
        batch: Sequence["asyncio.Future[Reply]"],
        replies: Sequence["asyncio.Future[Reply]"],
        count: "asyncio.Future[Reply]",
    ) -> None:
        self._busy = bool(self._next)
        if self._next:
            self._send()
        failed = count.exception()
        confirmed = 0 if failed else count.result()
        for waiting, reply in zip(batch, replies, strict=True):
            error = reply.exception()
            if waiting.done():  # its caller was cancelled
                continue
            if error is not None:
                waiting.set_exception(error)
            elif failed is not None:
                _fail(waiting, str(failed))
            elif confirmed < self._replicas:
                _fail(
                    waiting,
                    f"Redis is unavailable: {confirmed} of {self._replicas} replicas confirmed a write within "
                    f"{WAIT_MILLISECONDS} ms; it may have happened",
                )
            else:
                waiting.set_result(reply.result())


def _fail(waiting: "asyncio.Future[Reply]", reason: str) -> None:
    # Each future gets its own exception, because a traceback grows each time its exception is raised.
    if not waiting.done():
        waiting.set_exception(StoreUnavailableError(reason))
