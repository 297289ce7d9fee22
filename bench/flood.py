"""Duration of a write to the API and of `/readyz` during a flood of watches and incomplete request heads.

A real API process and a real Redis; watches of ten users from ten addresses, as many each as one user may have, and
incomplete heads from other addresses. The watches are idle while Secrets are written, and every write of a ConfigMap is
an event for each of them.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import httptools
import httpx

from bench.watchers import redis
from tests.component.api.processes import ApiProcess

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
USERS = 10
AT_ONCE = 100
"""Connections that are opened concurrently."""


class Watch(asyncio.Protocol):
    """A watch that counts the bytes of its events."""

    def __init__(self, path: str, token: str) -> None:
        self.status = 0
        self.received = 0
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        self._parser = httptools.HttpResponseParser(self)
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._head)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if not self.begun.done():
            self.begun.set_result(None)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.begun.set_result(None)

    def on_body(self, body: bytes) -> None:
        self.received += len(body)


class HalfHead(asyncio.Protocol):
    """A connection with an incomplete request head."""

    def __init__(self) -> None:
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"GET /api HTTP/1.1\r\nHost: loc")

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False


async def accounts(client: httpx.AsyncClient) -> list[str]:
    """Create ServiceAccounts that may watch; returns their tokens."""
    tokens = []
    for number in range(USERS):
        name = f"watcher-{number}"
        (await client.post(ACCOUNTS, json={"metadata": {"name": name}})).raise_for_status()
        subject = {"kind": "ServiceAccount", "namespace": "default", "name": name}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
        binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
        (await client.post(BINDINGS, json=binding)).raise_for_status()
        answer = await client.post(f"{ACCOUNTS}/{name}/token", json={})
        tokens.append(answer.raise_for_status().json()["status"]["token"])
    return tokens


async def open_watches(port: int, tokens: Sequence[str], count: int) -> list[Watch]:
    """Open watches, those of each user from a separate address."""
    loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)

    async def begin(number: int) -> Watch:
        user = number % len(tokens)
        async with gate:
            _, watch = await loop.create_connection(
                lambda: Watch(f"{CONFIG_MAPS}?watch=true", tokens[user]),
                "127.0.0.1",
                port,
                local_addr=(f"127.0.1.{user + 1}", 0),
            )
            await watch.begun
        return watch

    return await asyncio.gather(*(begin(number) for number in range(count)))


async def open_halves(port: int, count: int) -> list[HalfHead]:
    loop = asyncio.get_running_loop()
    opened = []
    for number in range(count):
        source = (f"127.0.2.{number % 5 + 1}", 0)
        opened.append((await loop.create_connection(HalfHead, "127.0.0.1", port, local_addr=source))[1])
    return opened


@contextlib.asynccontextmanager
async def probing(url: str) -> AsyncIterator[list[float]]:
    """Request `/readyz` repeatedly on new connections; yields the seconds of each response."""
    seconds: list[float] = []

    async def probe() -> None:
        while True:
            async with httpx.AsyncClient(timeout=60) as client:
                begun = time.perf_counter()
                (await client.get(f"{url}/readyz")).raise_for_status()
                seconds.append(time.perf_counter() - begun)
            await asyncio.sleep(0.1)

    probe_task = asyncio.create_task(probe())
    try:
        yield seconds
        if probe_task.done():
            await probe_task
    finally:
        probe_task.cancel()


async def write_and_probe(url: str, path: str, count: int) -> dict[str, list[float]]:
    """Return the seconds of writes, and of `/readyz` at the same time."""
    async with probing(url) as probes:
        written = await writes(url, path, count)
    return {"writes": written, "probes": probes}


async def elsewhere(url: str, path: str, count: int) -> dict[str, list[float]]:
    """Do the same in another process, since this one is busy with the events of its watches."""
    command = [sys.executable, "-m", "bench.flood", "--write-to", url, path, "--writes", str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the writer failed")
    samples: dict[str, list[float]] = json.loads(out)
    return samples


async def writes(url: str, path: str, count: int) -> list[float]:
    """Return the seconds of each of several successive writes."""
    seconds = []
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        for number in range(count):
            body = {"metadata": {"name": f"written-{number}-{time.time_ns()}"}}
            begun = time.perf_counter()
            (await client.post(path, json=body)).raise_for_status()
            seconds.append(time.perf_counter() - begun)
            await asyncio.sleep(0.2)
    return seconds


async def measure(api: ApiProcess, watches: int, halves: int, count: int) -> None:
    """Print the figures. Raises: httpx.HTTPError: the API refuses a write or does not respond."""
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
        tokens = await accounts(client)
    quiet = await elsewhere(api.url, SECRETS, count)
    begun = time.perf_counter()
    opened = await open_watches(api.port, tokens, watches)
    took = time.perf_counter() - begun
    half = await open_halves(api.port, halves)
    idle = await elsewhere(api.url, SECRETS, count)
    flooded = await elsewhere(api.url, CONFIG_MAPS, count)
    held = sum(watch.open and watch.status == 200 for watch in opened)
    incomplete = sum(connection.open for connection in half)
    print(f"{held} of {watches} watches after {took:.0f} s, {incomplete} of {halves} incomplete heads")
    print(f"RESULT flood.watches {held} connections")
    for name, samples in (("quiet", quiet), ("idle", idle), ("watched", flooded)):
        print(f"RESULT flood.write_{name}_p50 {statistics.median(samples['writes']) * 1000:.0f} ms")
        print(f"RESULT flood.write_{name}_max {max(samples['writes']) * 1000:.0f} ms")
        print(f"RESULT flood.readyz_{name}_max {max(samples['probes']) * 1000:.0f} ms")
    print(f"RESULT flood.rss {api.rss_mib():.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.flood", description=__doc__)
    parser.add_argument("--watches", type=int, default=5000)
    parser.add_argument("--half-heads", type=int, default=3000)
    parser.add_argument("--writes", type=int, default=20)
    parser.add_argument("--write-to", nargs=2, metavar=("URL", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write_to:
        url, path = options.write_to
        print(json.dumps(asyncio.run(write_and_probe(url, path, options.writes))))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with (
        tempfile.TemporaryDirectory(prefix="knoll-bench-") as directory,
        redis(Path(directory)) as url,
        ApiProcess(url, Path(directory)) as api,
    ):
        asyncio.run(measure(api, options.watches, options.half_heads, options.writes))


if __name__ == "__main__":
    main()
