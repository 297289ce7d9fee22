"""The engine's own time for a start without an armed instance: create and start, in a ready sandbox.

The requests are those of the runtime, sent one after the other without a pause.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from autoscaler.runtime.docker import payloads
from autoscaler.runtime.docker.engine import Engine
from autoscaler.runtime.docker.own_image import OwnImage
from autoscaler.runtime.model import ContainerSpec, InstanceSpec
from bench.coldstart_parts import IMAGE, PORT, SOCKET, first_byte
from knoll.values.json import Json

SETTLED_SECONDS = 0.3
"""Pause after the sandbox was created, as in the warm pool."""


class EngineStarts:
    """Starts the bench's image by calls to the engine alone."""

    def __init__(self, engine: Engine, network: str) -> None:
        self._engine, self._network = engine, network
        self._number = 0

    async def start(self) -> tuple[float, float]:
        """Start and remove a container in a sandbox of its own; returns the seconds of create and of start."""
        self._number += 1
        name, group = f"{self._network}-engine-{self._number}", f"{self._network}-{self._number}"
        own_image = await OwnImage(self._engine).id()
        sandbox = await self._engine.create(payloads.sandbox(name, self._network, own_image, "hello", group))
        created = ""
        try:
            await self._engine.post(f"/containers/{sandbox}/start")
            inspected = await self._engine.get(f"/containers/{sandbox}/json")
            address = str(inspected["NetworkSettings"]["Networks"][self._network]["IPAddress"])
            body = await self._body(name, sandbox, group, address)
            await asyncio.sleep(SETTLED_SECONDS)
            began = time.perf_counter()
            created = await self._engine.create(body)
            between = time.perf_counter()
            await self._engine.post(f"/containers/{created}/start")
            ended = time.perf_counter()
            await first_byte(address)
            return between - began, ended - between
        finally:
            for container in filter(None, (created, sandbox)):
                await self._engine.remove(container)

    async def _body(self, name: str, sandbox: str, group: str, address: str) -> Json:
        container = ContainerSpec("user-container", IMAGE)
        return payloads.container(
            InstanceSpec(name, "default/hello", "uid", (container,), PORT),
            container,
            platform=name,
            role="app",
            sandbox_id=sandbox,
            group=group,
            address=address,
            image_id=(await self._engine.get(f"/images/{IMAGE}/json"))["Id"],
            image_has_tmp=False,
            now=time.time(),
        )


@asynccontextmanager
async def engine_starts(network: str) -> AsyncIterator[EngineStarts]:
    """Provide starts on an engine. Args: network: name of an existing network."""
    engine = Engine(SOCKET)
    await engine.open()
    try:
        yield EngineStarts(engine, network)
    finally:
        await engine.close()
