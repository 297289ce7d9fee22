"""A platform on three machines, as a client on each of them sees it, and plain containers on their engines."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from autoscaler.runtime.docker.engine import Engine
from bench.coldstart_parts import IMAGE, PORT, REQUEST, image, until
from bench.coldstart_platform import QUICK, SERVICES, Platform, timing_parts
from bench.lib.namespaces import Client, client_in
from tests.cluster_processes import GATEWAY_PORT, platform_on
from tests.e2e.armed import is_armed
from tests.machines import Machine, Machines

SETTINGS = {"KNOLL_ARMED_INSTANCES": "32", "KNOLL_WARM_SANDBOXES": "32"}
"""The defaults of the platform; tests have less."""
READY_SECONDS = 300.0
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """A Service that was applied."""

    name: str
    host: str
    """Host of its URL."""
    revision: str
    """`namespace/name` of its only Revision."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response, and how long it took."""

    seconds: float
    """From before the connection to the first byte."""
    parts: Mapping[str, float]
    """Seconds of each part of `Server-Timing`."""


class MachineClient:
    """One machine: its engine, its activator, and a client on it."""

    def __init__(self, machine: Machine, client: Client, engine: Engine) -> None:
        self.machine, self.client, self.engine = machine, client, engine
        self.name = machine.name

    async def ask(self, service: Service, path: str = "/") -> Response:
        """Send a request to this machine's activator."""
        began = time.perf_counter()
        reader, writer = await self.client.connect(self.machine.address, GATEWAY_PORT)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {service.host}\r\nConnection: close\r\n\r\n".encode())
            head = await reader.read(1)
            took = time.perf_counter() - began
            head += await reader.read()
        finally:
            writer.close()
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{service.name} responded with {head[:300]!r}")
        return Response(took, timing_parts(head.decode(errors="replace")))

    async def plain(self) -> tuple[float, str]:
        """Create and start a container of the bench's image; returns the seconds to its first byte, and its id."""
        began = time.perf_counter()
        container = await self.engine.create({"Image": IMAGE, "Labels": {"knoll.dev/bench": "plain"}})
        await self.engine.post(f"/containers/{container}/start")
        inspected = await self.engine.get(f"/containers/{container}/json")
        await self._first_byte(str(inspected["NetworkSettings"]["IPAddress"]))
        return time.perf_counter() - began, container

    async def _first_byte(self, address: str) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await self.client.connect(address, PORT)
                try:
                    writer.write(REQUEST)
                    if await reader.read(1):
                        return
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.001)

    async def has_places(self) -> bool:
        """Return whether Swarm has placed more than one reservation here: those made ahead are spread by then."""
        filters: dict[str, str | int] = {"filters": '{"label":["com.docker.swarm.service.name"]}'}
        return len(await self.engine.get("/containers/json", filters)) > 1

    async def instances(self, service: Service) -> tuple[list[str], list[str]]:
        """Return the app containers of a Service here: those that run, and those that are armed."""
        return await asyncio.to_thread(self._instances, service)

    def _instances(self, service: Service) -> tuple[list[str], list[str]]:
        def docker(*arguments: str) -> str:
            return self.machine.docker(*arguments, check=False).stdout

        label = f"label=knoll.dev/revision={service.revision}"
        containers = docker("ps", "--quiet", "--no-trunc", "--filter", label).split()
        armed = [each for each in containers if is_armed(each, docker)]
        return [each for each in containers if each not in armed], armed


class ClusterClient:
    """All machines, and the platform's API."""

    def __init__(self, nodes: Sequence[MachineClient], api: Platform) -> None:
        self.nodes, self.api = nodes, api

    def node(self, name: str) -> MachineClient:
        return next(each for each in self.nodes if each.name == name)

    def others(self, name: str) -> list[MachineClient]:
        """Return all machines except one."""
        return [each for each in self.nodes if each.name != name]

    @asynccontextmanager
    async def service(
        self, name: str, annotations: Mapping[str, str] | None = None, spec: Json | None = None, **container: Any
    ) -> AsyncIterator[Service]:
        """Apply a Service of the bench's image, and yield it once it is Ready.

        Args:
            spec: more fields of the Revision.
            container: more fields of its container.
        """
        containers = [{"image": IMAGE, "ports": [{"containerPort": PORT}], **container}]
        template = {
            "metadata": {"annotations": dict(annotations or {})},
            "spec": {"containers": containers, **(spec or {})},
        }
        kind = {"apiVersion": "serving.knative.dev/v1", "kind": "Service"}
        await self.api.call("POST", SERVICES, {**kind, "metadata": {"name": name}, "spec": {"template": template}})
        try:
            yield await self._ready(name)
        finally:
            await self.api.call("DELETE", f"{SERVICES}/{name}")

    async def _ready(self, name: str) -> Service:
        async def ready() -> bool:
            status = (await self.api.call("GET", f"{SERVICES}/{name}")).get("status") or {}
            conditions = status.get("conditions", [])
            return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

        await until(ready, READY_SECONDS)
        status = (await self.api.call("GET", f"{SERVICES}/{name}"))["status"]
        return Service(name, str(urlsplit(status["url"]).hostname), f"default/{status['latestReadyRevisionName']}")

    async def armed_node(self, service: Service) -> MachineClient:
        """Wait until a Service has no instance, and one that is armed; returns the machine of that one."""
        path = f"/apis/serving.knative.dev/v1/namespaces/default/revisions/{service.revision.partition('/')[2]}"
        at: list[MachineClient] = []

        async def zero() -> bool:
            if (await self.api.call("GET", path))["status"].get("actualReplicas", 1):
                return False
            of_nodes = await asyncio.gather(*(node.instances(service) for node in self.nodes))
            at[:] = [node for node, (_, armed) in zip(self.nodes, of_nodes, strict=True) if armed]
            return len(at) == 1 and not any(running for running, _ in of_nodes)

        await until(zero, READY_SECONDS)
        return at[0]

    def quick(self, **data: str) -> AbstractAsyncContextManager[None]:
        """Use the shortest windows, and these fields of `config-autoscaler`."""
        return self.configured("config-autoscaler", {**QUICK, **data})

    @asynccontextmanager
    async def configured(self, name: str, data: Mapping[str, str]) -> AsyncIterator[None]:
        """Change fields of a ConfigMap, and restore them afterwards."""
        path = f"/api/v1/namespaces/knative-serving/configmaps/{name}"
        before = (await self.api.call("GET", path)).get("data") or {}
        await self.api.call("PATCH", path, {"data": dict(data)})
        try:
            yield
        finally:
            await self.api.call("PATCH", path, {"data": {key: before.get(key) for key in data}})


@asynccontextmanager
async def platform(lab: Machines, **settings: str) -> AsyncIterator[ClusterClient]:
    """Start a platform on all machines, and provide clients of it.

    Args: settings: of all processes, in addition to the usual ones.
    """
    with ExitStack() as threads:
        threads.enter_context(image())
        async with AsyncExitStack() as stack:
            of_machines = await stack.enter_async_context(platform_on(lab, "one", [IMAGE], **SETTINGS | settings))
            nodes = []
            for machine in lab:
                engine = Engine(machine.socket)
                await engine.open()
                stack.push_async_callback(engine.close)
                nodes.append(MachineClient(machine, threads.enter_context(client_in(machine.namespace)), engine))
            socket = aiohttp.UnixConnector(str(of_machines.nodes[1].folder / "api.sock"))
            session = await stack.enter_async_context(aiohttp.ClientSession("http://localhost", connector=socket))
            for node in nodes:
                await until(node.has_places)
            yield ClusterClient(nodes, Platform(session, "", ""))
