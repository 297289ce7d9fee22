"""Watches: streams of events, one JSON object per line.

The store reads the events once for all watches of this process (`knoll.store.event_feed`, where a watch that resumes
from a resource version finds its events, or learns that they are gone); here each event is also encoded once for all
watches that show it in the same form. A watch whose client does not read stops taking events, and continues where it
stopped.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

import orjson
from starlette.types import Receive, Scope, Send

from api.wire import status, tables
from api.wire.content_negotiation import Form
from api.wire.options import WatchOptions
from api.wire.paths import ResourcePath
from knoll.store.protocol import Store, WatchEvent
from knoll.store.rules import compact
from knoll.values.errors import KnollError
from knoll.values.json import Json
from knoll.values.kinds import NAMESPACE

BOOKMARK_SECONDS = 60.0
MAX_WAITING = 1024 * 1024
"""Bytes that are buffered for a slow client before its watch stops taking events."""
CACHE_BYTES = 2 * 1024 * 1024
"""Size of the cache of encoded events, in bytes."""
_INITIAL_END = "k8s.io/initial-events-end"
_CHUNK = 128
_CANCEL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class View:
    """The form in which a client gets objects."""

    target: ResourcePath
    form: Form
    include: str

    def key(self, kind: str, headed: bool) -> tuple[object, ...]:
        """A key that is equal for views that encode an event of this type equally."""
        return (kind, self.target.place.api_version, self.form, self.include, headed)

    def render(self, body: Json, *, headed: bool) -> Json:
        """Return the object in this form; as a table with one row if tables were requested."""
        kind = self.target.place.kind
        if self.form.shape == "table":
            metadata = {"resourceVersion": body["metadata"].get("resourceVersion", "")}
            row = tables.row(kind, body, time.time(), self.include)
            return tables.table(kind, [row], metadata, self.form.api_version, headed=headed)
        if self.form.shape == "partial":
            return {"kind": "PartialObjectMetadata", "apiVersion": self.form.api_version, "metadata": body["metadata"]}
        if self.target.place.version == kind.version:
            return body
        return {**body, "apiVersion": self.target.place.api_version}

    def bookmark(self, version: int, annotations: Json) -> Json:
        """Return the object of a bookmark, which has a version and no content."""
        metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        if self.form.shape == "table":
            return tables.table(self.target.place.kind, [], metadata, self.form.api_version, headed=False)
        return {"kind": self.target.place.kind.kind, "apiVersion": self.target.place.api_version, "metadata": metadata}


class EventCache:
    """A cache of events encoded as JSON, shared by watches with equal views."""

    def __init__(self, bound: int = CACHE_BYTES) -> None:
        self._bound = bound
        self._size = 0
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def get(self, key: tuple[object, ...], make: Callable[[], Json]) -> bytes:
        """Return `make()` as JSON, from the cache if the key is in it."""
        line = self._kept.get(key)
        if line is None:
            line = self._kept[key] = compact(orjson.dumps(make()))
            self._size += len(line)
            while self._size > self._bound:
                self._size -= len(self._kept.popitem(last=False)[1])
        return line


class Watches:
    """All open watches of this process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.event_cache = EventCache()
        self.closing = False
        self._open: set[Watch] = set()

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """End all watches gracefully; those that start later end at once."""
        self.closing = True
        for watch in self._open:
            watch.wake()

    def add(self, watch: "Watch") -> None:
        self._open.add(watch)
        if self.closing:
            watch.wake()

    def remove(self, watch: "Watch") -> None:
        self._open.discard(watch)
        if not self._open:
            self.event_cache = EventCache()


class Watch:
    """One watch, as an ASGI response."""

    def __init__(self, watches: Watches, view: View, options: WatchOptions) -> None:
        self._watches = watches
        self._view = view
        self._options = options
        self._headed = True
        self._version = options.since
        self._lines: list[bytes] = []
        self._size = 0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._gone = False
        self._ended = False

    def wake(self) -> None:
        self._something.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache, private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # An empty chunk sends the head at once: clients wait for it before they rely on the watch.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._listen(receive))]
        self._watches.add(self)
        try:
            await self._send_all(send)
        finally:
            self._watches.remove(self)
            for task in tasks:
                await _stop(task)

    async def _send_all(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + self._options.timeout
        mark = clock() + BOOKMARK_SECONDS if self._options.bookmarks else None
        while not self._gone:
            await _set_by(self._something, end if mark is None else min(end, mark))
            self._something.clear()
            stop = self._ended or self._watches.closing or clock() >= end
            lines, self._lines, self._size = self._lines, [], 0
            self._room.set()
            if mark is not None and (stop or clock() >= mark) and not self._ended and self._version:
                mark = clock() + BOOKMARK_SECONDS
                lines.append(self._bookmark({}))
            if lines:
                await send({"type": "http.response.body", "body": b"".join(lines), "more_body": True})
            if stop:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return

    async def _listen(self, receive: Receive) -> None:
        """Wait for the client to disconnect."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self.wake()

    async def _pump(self) -> None:
        """Take events from the store while the buffer has space."""
        try:
            await self._begin()
            kind = self._view.target.place.kind.id
            events = cast("AsyncGenerator[WatchEvent, None]", self._watches.store.watch(self._version, {kind}))
            async with aclosing(events):
                async for event in events:
                    line = self._line(event)
                    self._version = event.version
                    if line:
                        await self._put(line)
        except KnollError as error:
            await self._put(orjson.dumps({"type": "ERROR", "object": status.failure(error)}) + b"\n")
        finally:
            self._ended = True
            self.wake()

    async def _put(self, line: bytes) -> None:
        while self._size > MAX_WAITING:
            self._room.clear()
            await self._room.wait()
        self._lines.append(line)
        self._size += len(line)
        self._something.set()

    async def _begin(self) -> None:
        """Send the existing objects if requested, and set the version to continue from."""
        options, target, store = self._options, self._view.target, self._watches.store
        if not options.initial:
            if not options.since:
                self._version = (await store.list(NAMESPACE.id)).version
            return
        listing = await store.list(target.place.kind.id, target.namespace)
        for at, body in enumerate(listing.items):
            if at % _CHUNK == _CHUNK - 1:
                await asyncio.sleep(0)
            if options.selector.matches(body):
                rendered = orjson.dumps(self._view.render(body, headed=self._headed))
                self._headed = False
                await self._put(b'{"type":"ADDED","object":' + rendered + b"}\n")
        self._version = listing.version
        if options.announce and options.bookmarks:
            await self._put(self._bookmark({_INITIAL_END: "true"}))

    def _line(self, event: WatchEvent) -> bytes:
        """The event as this watch shows it; empty if the object is not selected."""
        body = event.body
        namespace = self._view.target.namespace
        if namespace and body["metadata"].get("namespace") != namespace:
            return b""
        matches = self._options.selector.matches
        before = event.before if event.before is not None else (body if event.type == "DELETED" else None)
        was = before is not None and matches(before)
        now = event.type != "DELETED" and matches(body)
        if not was and not now:
            return b""
        kind = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
        if kind == "DELETED" and before is not None and event.type != "DELETED":
            # An object that is no longer selected is shown as it last was, with the version of the change.
            body = {
                **before,
                "metadata": {**before["metadata"], "resourceVersion": body["metadata"]["resourceVersion"]},
            }
        headed, self._headed = self._headed, False
        key = (event.version, *self._view.key(kind, headed))
        rendered = self._watches.event_cache.get(key, lambda: self._view.render(body, headed=headed))
        return b'{"type":"' + kind.encode() + b'","object":' + rendered + b"}\n"

    def _bookmark(self, annotations: Json) -> bytes:
        return orjson.dumps({"type": "BOOKMARK", "object": self._view.bookmark(self._version, annotations)}) + b"\n"


async def _set_by(event: asyncio.Event, deadline: float) -> None:
    """Wait until the event is set or the deadline, by the event loop's clock, has passed."""
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        return


async def _stop(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for it; raises the exception of a failed task.

    A cancellation can get lost in a client library that is releasing its connection, so it is repeated.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
    if not task.cancelled():
        task.result()
