"""Cold starts of some Services on a platform with a fake runtime, one after the other, under any load.

The requests are sent by a process of its own: the event loop that applies many Services at the same time would delay
them, and the delay would count as the platform's.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from urllib.parse import urlsplit

import httpx

from bench.coldstart_platform import SERVICES
from bench.lib.fleet import OWN, Processes, Watch, apply

COUNT = 8
"""Number of Services: several, because each needs some seconds to return to zero."""
POLL_SECONDS = 0.25
PODS = "/api/v1/namespaces/default/pods"


class ColdStarts:
    """The Services, and how long their cold starts took."""

    def __init__(self, platform: Processes, client: httpx.AsyncClient, count: int = COUNT) -> None:
        self._api, self._gateway, self._client = platform.api, platform.gateway, client
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
        await self._measure("--rounds", str(count))
        return self.seconds

    async def run(self, pause: float) -> None:
        """Start one Service after the other until cancelled. Args: pause: seconds between two starts."""
        await self._measure("--pause", str(pause))

    async def _measure(self, *options: str) -> None:
        self.seconds = []
        command = [sys.executable, "-m", "bench.lib.cold_starts", self._api, str(self._gateway), *options]
        hosts = [f"{name}={host}" for name, host in self._hosts.items()]
        process = await asyncio.create_subprocess_exec(*command, *hosts, cwd=OWN, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self.seconds.append(float(line))
            if await process.wait():
                raise SystemExit("cold starts failed, see above")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def start(client: httpx.AsyncClient, gateway: int, name: str, host: str) -> float:
    """Send a request to a Service once it is at zero; returns the seconds until the first byte of the response."""
    await _until_zero(client, name)
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.read(12)
        seconds = time.monotonic() - begun
        if head != b"HTTP/1.1 200":
            raise SystemExit(f"{name} responded with {head!r}")
        await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return seconds


async def _until_zero(client: httpx.AsyncClient, name: str) -> None:
    selector = {"labelSelector": f"serving.knative.dev/service={name}", "limit": "1"}
    while True:
        if not (await client.get(PODS, params=selector)).json()["items"]:
            return
        await asyncio.sleep(POLL_SECONDS)


async def measure(api: str, gateway: int, hosts: dict[str, str], rounds: int, pause: float) -> None:
    """Print the seconds of each start. Args: rounds: 0 goes on until the process ends."""
    done = 0
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:
        while not rounds or done < rounds:
            for name, host in hosts.items():
                print(await start(client, gateway, name, host), flush=True)
                await asyncio.sleep(pause)
            done += 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.lib.cold_starts", description=__doc__)
    parser.add_argument("api", help="URL of the API")
    parser.add_argument("gateway", type=int, help="port of the gateway")
    parser.add_argument("hosts", nargs="+", help="NAME=HOST of each Service")
    parser.add_argument("--rounds", type=int, default=0, help="starts of each Service; 0 is without end (%(default)s)")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each start (%(default)s)")
    options = parser.parse_args()
    hosts = dict(host.split("=") for host in options.hosts)
    asyncio.run(measure(options.api, options.gateway, hosts, options.rounds, options.pause))


if __name__ == "__main__":
    main()
