"""Many watchers of one kind and many writers to it, and a check that no watcher missed or reordered an event."""

import asyncio
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import cast
from urllib.parse import urlsplit

import aiohttp
import httptools

PATH = "/api/v1/namespaces/default/configmaps"
_LINE = re.compile(rb'\{"type":"(ADDED|MODIFIED|DELETED)".*?"resourceVersion":"(\d+)"')


class Watcher(asyncio.Protocol):
    """A watch on a bare socket: versions of the events in the order of arrival.

    Attributes:
        versions: `resourceVersion` of each event.
        ended: why the watch has ended; empty while it is open.
    """

    def __init__(self, host: str, path: str) -> None:
        self.versions = array("q")
        self.ended = ""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        cast(asyncio.Transport, transport).write(self._request)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or f"the connection closed: {exc}"

    def on_headers_complete(self) -> None:
        code = self._parser.get_status_code()
        if code == 200:
            self.begun.set_result(None)
        else:
            self.begun.set_exception(RuntimeError(f"the watch got status {code}"))

    def on_body(self, body: bytes) -> None:
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            event = _LINE.match(line)
            if event is None:
                self.ended = f"not an event: {line[:200]!r}"
            else:
                self.versions.append(int(event[2]))

    def on_message_complete(self) -> None:
        self.ended = self.ended or "the API ended the watch"

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Crowd:
    """Watchers and writers of the ConfigMaps of one API.

    Attributes:
        written: versions of all writes that succeeded.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.watchers: list[Watcher] = []
        self.written: list[int] = []
        self._turns: Counter[str] = Counter()

    @contextmanager
    def closing(self) -> Iterator["Crowd"]:
        try:
            yield self
        finally:
            for watcher in self.watchers:
                watcher.close()

    async def watch(self, count: int) -> None:
        """Open `count` watches from the current version; returns when all are open."""
        place = urlsplit(self.url)
        assert place.hostname is not None
        assert place.port is not None
        host, port = place.hostname, place.port
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(self.url) as session, session.get(PATH) as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]
        path = f"{PATH}?watch=true&resourceVersion={version}"
        for _ in range(count):
            _, watcher = await loop.create_connection(lambda: Watcher(place.netloc, path), host, port)
            self.watchers.append(watcher)
        await asyncio.gather(*(watcher.begun for watcher in self.watchers))

    async def write(self, writers: int, seconds: float) -> None:
        """Write concurrently, each writer to its own ConfigMap: create, change many times, delete, start again."""
        until = asyncio.get_running_loop().time() + seconds
        connector = aiohttp.TCPConnector(limit=writers)
        session = aiohttp.ClientSession(self.url, connector=connector, raise_for_status=True)
        async with session, asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(self._writer(session, f"crowd-{number}", until))

    async def _writer(self, session: aiohttp.ClientSession, name: str, until: float) -> None:
        clock = asyncio.get_running_loop().time
        while clock() < until:
            turn = self._turns[name]
            step = turn % 20
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"turn": str(turn)}}
            if step == 19:
                async with session.delete(f"{PATH}/{name}") as answer:
                    await answer.read()
                # The response to a delete does not have its version.
                self.written.append(0)
            else:
                method, path = ("POST", PATH) if step == 0 else ("PUT", f"{PATH}/{name}")
                async with session.request(method, path, json=body) as answer:
                    self.written.append(int((await answer.json())["metadata"]["resourceVersion"]))
            self._turns[name] += 1

    def behind(self) -> int:
        """Return the number of events that the slowest watcher has not received."""
        return max(len(self.written) - len(watcher.versions) for watcher in self.watchers)

    def faults(self) -> list[str]:
        """Return the faults of the watchers; none when each received every write once and in order."""
        faults = [f"watcher {at}: {watcher.ended}" for at, watcher in enumerate(self.watchers) if watcher.ended]
        versions_written = {version for version in self.written if version}
        for at, watcher in enumerate(self.watchers):
            versions = watcher.versions
            if any(later <= earlier for earlier, later in pairwise(versions)):
                faults.append(f"watcher {at} saw events out of order")
            if len(versions) != len(self.written):
                faults.append(f"watcher {at} saw {len(versions)} events of {len(self.written)}")
            if missed := versions_written.difference(versions):
                faults.append(f"watcher {at} missed {len(missed)} writes, such as version {min(missed)}")
            if versions != self.watchers[0].versions:
                faults.append(f"watcher {at} saw other events than watcher 0")
        return faults
