"""Ends watches and followed logs when the right to them is revoked or the user's token expires.

Kubernetes lets them run until their timeout. Here the rights of all open streams are checked again whenever a binding
or a ServiceAccount changes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.authorization import Binding
from api.auth.identity import User
from api.http.protocol import CONNECTION
from api.wire import status
from knoll.concurrency.backoff import Backoff
from knoll.store.informer import Informer, ObjectChange
from knoll.store.protocol import Store
from knoll.values.errors import KnollError, StoreUnavailableError, UnauthorizedError
from knoll.values.kinds import CLUSTER_ROLE_BINDING, ROLE_BINDING, SERVICE_ACCOUNT

log = structlog.get_logger()

LAST_SECONDS = 5.0
"""How long a client may take to read why its stream ends, in seconds; then its connection is closed."""
_YIELD_EVERY = 100
"""Number of streams that are checked before other tasks get a turn."""


@dataclass(slots=True)
class Sweep:
    """What was read during one check of all streams."""

    bindings: Sequence[Binding] | None = None
    users: dict[str, User | KnollError] = field(default_factory=dict)
    """By `Authorization` header: its user, or the error if the header is not, or no longer, valid."""


StreamCheck = Callable[[Sweep], Awaitable[None]]
"""Raises KnollError if a stream is no longer allowed."""


class Stream:
    """One response that does not end by itself."""

    def __init__(self, check: StreamCheck) -> None:
        self.check = check
        self.ended: asyncio.Future[KnollError] = asyncio.get_running_loop().create_future()

    def end(self, error: KnollError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)


class Streams:
    """All open streams of this process."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        """Args: now: returns epoch seconds."""
        self._now = now
        self._open: set[Stream] = set()
        self._changed = asyncio.Event()
        self._informers = [Informer(store, kind.id) for kind in (ROLE_BINDING, CLUSTER_ROLE_BINDING, SERVICE_ACCOUNT)]
        for informer in self._informers:
            informer.subscribe(self._note)

    def __len__(self) -> int:
        return len(self._open)

    def _note(self, notice: ObjectChange) -> None:
        if notice.type != "ADDED" and self._open:
            self._changed.set()

    async def run(self) -> None:
        """Check the rights of open streams until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        backoff = Backoff()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._look()
                backoff.reset()
            except StoreUnavailableError:
                self._changed.set()
                await backoff.wait()

    async def _look(self) -> None:
        sweep = Sweep()
        for at, stream in enumerate(list(self._open)):
            try:
                await stream.check(sweep)
            except StoreUnavailableError:
                raise
            except KnollError as error:
                stream.end(error)
            if at % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)

    @contextmanager
    def opened(self, check: StreamCheck) -> Iterator[Stream]:
        """Register a stream; done before its rights are checked first, so that no change is missed."""
        stream = Stream(check)
        self._open.add(stream)
        try:
            yield stream
        finally:
            self._open.discard(stream)

    async def serve(
        self, stream: Stream, expires: float, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run `app` until it is done or the stream ends.

        Args: expires: epoch seconds at which the user's token expires; 0 for never.
        """
        begun = over = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if not over:
                begun = begun or message["type"] == "http.response.start"
                await send(message)

        timer = None
        if expires:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(max(0.0, expires - self._now()), stream.end, UnauthorizedError("Unauthorized"))

        async def answer() -> None:
            await app(scope, receive, guarded)

        answering = asyncio.create_task(answer())
        try:
            waited: set[asyncio.Future[Any]] = {answering, stream.ended}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                over = True
                await _stop(answering)
                await _say(stream.ended.result(), scope, receive, send, begun=begun)
        finally:
            if timer is not None:
                timer.cancel()
            await _stop(answering)
        if not answering.cancelled():
            answering.result()


async def _say(error: KnollError, scope: Scope, receive: Receive, send: Send, *, begun: bool) -> None:
    """Tell the client why its stream ends."""
    log.info("stream ended", path=scope["path"], reason=error.reason)
    if not begun:
        await status.respond(error)(scope, receive, send)
        return
    if scope["path"].endswith("/log"):
        last = f"\nthe log ends: {error}\n".encode()
    else:
        last = orjson.dumps({"type": "ERROR", "object": status.failure(error)}) + b"\n"
    try:
        async with asyncio.timeout(LAST_SECONDS):
            await send({"type": "http.response.body", "body": last, "more_body": False})
    except TimeoutError:
        if connection := scope.get(CONNECTION):
            connection.abort()


async def _stop(task: "asyncio.Task[None]") -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
