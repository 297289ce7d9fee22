"""A whole running platform beside `docker run`: the request goes to its activator while the service is at zero."""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from bench import coldstart_armed, coldstart_engine, coldstart_network
from bench.coldstart_parts import AT_ONCE, IMAGE, NETWORK_OPTIONS, Samples, command, docker_run, until

SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
AUTOSCALER = "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler"
QUICK = {
    "stable-window": "6s",
    "panic-window-percentage": "20",
    "scale-to-zero-grace-period": "6s",
    "scale-to-zero-pod-retention-period": "0s",
}
"""The shortest windows that Knative's validation allows: most of a round is waiting for zero."""

QUIET_SECONDS = 0.3
"""Pause after `docker rm`."""
SETTLE_SECONDS = 5.0
"""Pause after removing 25 containers: the engine is still busy with them, and the pool is filled again."""


class Platform:
    """A client of a platform's API and activator."""

    def __init__(self, client: aiohttp.ClientSession, url: str, api: str) -> None:
        self._client, self._url, self._api = client, url, api

    async def call(self, method: str, path: str, content: object = None) -> Any:
        headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        async with self._client.request(method, self._api + path, json=content, headers=headers) as answer:
            body = await answer.json()
            if answer.status >= 400:
                raise SystemExit(f"{method} {path}: {body.get('message', body)}")
            return body

    @asynccontextmanager
    async def quick(self) -> AsyncIterator[None]:
        """Use the shortest windows, and restore the configuration afterwards."""
        before = (await self.call("GET", AUTOSCALER)).get("data") or {}
        await self.call("PATCH", AUTOSCALER, {"data": QUICK})
        try:
            yield
        finally:
            await self.call("PATCH", AUTOSCALER, {"data": {key: before.get(key) for key in QUICK}})

    @asynccontextmanager
    async def service(self, name: str, annotations: Mapping[str, str] | None = None) -> AsyncIterator[str]:
        """Apply a Service of the bench's image, and yield the host of its URL."""
        container = {"image": IMAGE, "ports": [{"containerPort": 8080}]}
        template = {"metadata": {"annotations": dict(annotations or {})}, "spec": {"containers": [container]}}
        spec = {"template": template}
        kind = {"apiVersion": "serving.knative.dev/v1", "kind": "Service"}
        await self.call("POST", SERVICES, {**kind, "metadata": {"name": name}, "spec": spec})
        try:

            async def ready() -> bool:
                return bool(await self._ready_url(name))

            await until(ready)
            yield str(urlsplit(await self._ready_url(name)).hostname)
        finally:
            await self.call("DELETE", f"{SERVICES}/{name}")

    async def until_zero(self, name: str, *, armed: bool) -> None:
        """Wait until a Service has no instance, and an armed one if `armed`."""
        service = await self.call("GET", f"{SERVICES}/{name}")
        revision = service["status"]["latestReadyRevisionName"]
        path = f"/apis/serving.knative.dev/v1/namespaces/default/revisions/{revision}"
        label = f"label=knoll.dev/revision=default/{revision}"

        async def zero() -> bool:
            replicas = (await self.call("GET", path))["status"].get("actualReplicas", 1)
            containers = command("docker", "ps", "-q", "--filter", label).split()
            return not replicas and len(containers) == armed and all(map(coldstart_armed.is_armed, containers))

        await until(zero)

    async def until_paused(self, name: str) -> None:
        """Wait until each instance of a Service is paused, and activators have no endpoint of it."""
        service = await self.call("GET", f"{SERVICES}/{name}")
        revision = service["status"]["latestReadyRevisionName"]
        path = f"/apis/serving.knative.dev/v1/namespaces/default/revisions/{revision}"
        label = f"label=knoll.dev/revision=default/{revision}"

        async def paused() -> bool:
            # The engine is checked first: the API may still show the status of the last round.
            frozen = command("docker", "ps", "-q", "--filter", label, "--filter", "status=paused")
            running = command("docker", "ps", "-q", "--filter", label, "--filter", "status=running")
            return bool(frozen and not running) and not (await self.call("GET", path))["status"].get(
                "actualReplicas", 1
            )

        await until(paused)

    async def ask(self, host: str) -> tuple[float, float, dict[str, float]]:
        """Send a request.

        Returns:
            Seconds from before the connection to the first byte, those from the request to the first byte, and those of
            each part of `Server-Timing`.
        """
        target = urlsplit(self._url)
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(target.hostname, target.port or 80)
        connected = time.perf_counter()
        try:
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head = await reader.read(1)
            now = time.perf_counter()
            head += await reader.read()
        finally:
            writer.close()
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{host} responded with {head[:200]!r}")
        return now - began, now - connected, timing_parts(head.decode(errors="replace"))

    async def _ready_url(self, name: str) -> str:
        status = (await self.call("GET", f"{SERVICES}/{name}")).get("status") or {}
        conditions = status.get("conditions", [])
        ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
        return str(status["url"]) if ready else ""


def timing_parts(head: str) -> dict[str, float]:
    """Return the seconds of each part of `Server-Timing`."""
    header = re.search(r"(?im)^server-timing:(.*)$", head)
    parts = re.findall(r"([\w-]+)\s*;[^,]*?dur=([\d.]+)", header[1] if header else "")
    return {name: float(value) / 1000 for name, value in parts}


async def rounds(platform: Platform, network: str, token: str, count: int, *, armed: bool) -> Samples:
    """Alternating rounds of `docker run` and a request to a Service at zero; the first round is dropped.

    `own` is the part that neither the engine nor the app's start takes, `told` the sum of all parts. Without armed
    instances, each round also measures what the engine alone takes for the same start.
    """
    kind = "zero" if armed else "unarmed"
    samples: Samples = {"docker_run": [], kind: [], f"{kind}_own": [], f"{kind}_told": [], f"{kind}_waited": []}
    of_parts: dict[str, list[float]] = {}
    name = f"bench-{token}-{kind}"
    async with platform.service(name) as host, coldstart_engine.engine_starts(network) as engine:
        for number in range(count + 1):
            await platform.until_zero(name, armed=armed)
            if not armed:
                for part, seconds in zip(("engine: create", "engine: start"), await engine.start(), strict=True):
                    of_parts.setdefault(part, []).append(seconds)
                await asyncio.sleep(QUIET_SECONDS)
            samples["docker_run"].append(await docker_run(name, network, f"10.213.100.{number % 250 + 2}"))
            await asyncio.sleep(QUIET_SECONDS)
            took, waited, parts = await platform.ask(host)
            samples[kind].append(took)
            samples[f"{kind}_own"].append(parts.get("queue", 0.0) + parts.get("schedule", 0.0))
            samples[f"{kind}_waited"].append(waited)
            samples[f"{kind}_told"].append(sum(parts.values()))
            for part, seconds in parts.items():
                of_parts.setdefault(f"{kind}: {part}", []).append(seconds)
    return {kind: values[1:] for kind, values in (samples | of_parts).items()}


async def pauses(platform: Platform, token: str, count: int) -> Samples:
    """Requests to a Service whose only instance is paused; the first one is dropped."""
    samples: Samples = {"paused": []}
    name = f"bench-{token}-paused"
    async with platform.service(name, {"knoll.dev/paused-retention-period": "1h"}) as host:
        for _ in range(count + 1):
            await platform.until_paused(name)
            samples["paused"].append((await platform.ask(host))[0])
    return {kind: values[1:] for kind, values in samples.items()}


async def wake(platform: Platform, network: str, token: str, count: int) -> Samples:
    """Many concurrent cold starts beside as many `docker run`; the first round is reported separately."""
    samples: Samples = {"docker_run_25": [], "zero_25": [], "zero_25_unlearned": []}
    names = [f"bench-{token}-{number}" for number in range(AT_ONCE)]
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(platform.service(name)) for name in names]
        for number in range(count + 1):
            await asyncio.gather(*(platform.until_zero(name, armed=True) for name in names))
            samples["armed_bytes"] = [coldstart_armed.bytes_of_each(names)]
            runs = (docker_run(name, network, f"10.213.101.{at + 2}") for at, name in enumerate(names))
            samples["docker_run_25"] += await asyncio.gather(*runs)
            await asyncio.sleep(SETTLE_SECONDS)
            woken = await asyncio.gather(*(platform.ask(host) for host in hosts))
            samples["zero_25" if number else "zero_25_unlearned"] += [took for took, *_ in woken]
    return samples


async def measure(url: str, api: str, count: int, wakes: int, *, armed: bool = True) -> Samples:
    """Measure a running platform, and restore its configuration afterwards.

    Args: armed: its instances are armed; without, only the rounds are measured.
    """
    token = uuid.uuid4().hex[:6]
    network = f"{coldstart_network.PREFIX}{token}"
    with coldstart_network.network(network, *NETWORK_OPTIONS):
        async with aiohttp.ClientSession() as client:
            platform = Platform(client, url, api)
            async with platform.quick():
                samples = await rounds(platform, network, token, count, armed=armed)
                if armed:
                    samples |= await pauses(platform, token, count)
                    samples |= await wake(platform, network, token, wakes) if wakes else {}
        return samples
