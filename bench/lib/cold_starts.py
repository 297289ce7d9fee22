"""Cold starts of some Services on a platform with a fake runtime, one after the other, under any load."""

import asyncio
import contextlib
import time
from urllib.parse import urlsplit

import httpx

from bench.coldstart_platform import SERVICES
from bench.lib.fleet import Processes, Watch, apply

COUNT = 8
"""Number of Services: several, because each needs some seconds to return to zero."""
POLL_SECONDS = 0.25
PODS = "/api/v1/namespaces/default/pods"


class ColdStarts:
    """The Services, and how long their cold starts took."""

    def __init__(self, platform: Processes, client: httpx.AsyncClient, count: int = COUNT) -> None:
        self._gateway, self._client = platform.gateway, client
        self._names = [f"cold-{number}" for number in range(count)]
        self._hosts: dict[str, str] = {}
        self.seconds: list[float] = []
        """Times of the starts, from before the connection to the first byte of the response."""

    async def prepare(self, watch: Watch) -> None:
        """Apply the Services. Args: watch: running; no other Service was applied yet."""
        await asyncio.gather(*(apply(self._client, name) for name in self._names))
        await watch.count(len(self._names))
        for name in self._names:
            answer = await self._client.get(f"{SERVICES}/{name}")
            self._hosts[name] = str(urlsplit(answer.json()["status"]["url"]).hostname)

    async def rounds(self, count: int) -> list[float]:
        """Start each Service `count` times; returns the seconds of each start."""
        self.seconds = []
        for _ in range(count):
            for name in self._names:
                await self.start(name)
        return self.seconds

    async def run(self, pause: float) -> None:
        """Start one Service after the other until cancelled. Args: pause: seconds between two starts."""
        self.seconds = []
        while True:
            for name in self._names:
                await self.start(name)
                await asyncio.sleep(pause)

    async def start(self, name: str) -> None:
        """Send a request to a Service once it is at zero."""
        await self._until_zero(name)
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway)
        try:
            writer.write(f"GET / HTTP/1.1\r\nHost: {self._hosts[name]}\r\nConnection: close\r\n\r\n".encode())
            head = await reader.read(12)
            self.seconds.append(time.monotonic() - begun)
            if head != b"HTTP/1.1 200":
                raise SystemExit(f"{name} responded with {head!r}")
            await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _until_zero(self, name: str) -> None:
        selector = {"labelSelector": f"serving.knative.dev/service={name}", "limit": "1"}
        while True:
            if not (await self._client.get(PODS, params=selector)).json()["items"]:
                return
            await asyncio.sleep(POLL_SECONDS)
