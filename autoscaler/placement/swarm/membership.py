"""This machine in the Swarm: its id there, and whether it may place instances. Follows changes of both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from autoscaler.placement.swarm import reservation_image
from autoscaler.placement.swarm.client import EngineSwarm
from autoscaler.placement.swarm.placer import SwarmPlacer
from autoscaler.placement.swarm.places import PlaceOptions
from autoscaler.runtime.docker.engine import Engine
from knoll.concurrency.backoff import until_available
from knoll.values.errors import KnollError
from knoll.values.json import Json

log = structlog.get_logger()

IMAGE_SECONDS = 60.0
"""Interval at which the image of reservations is checked for."""
POLL_SECONDS = 5.0
"""Interval at which the membership is read. The engine has no event for it on workers."""


class SwarmMember:
    """This machine as a member of a Swarm, or of none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.id = ""
        """Its id in the Swarm; empty if it is in none."""
        self.is_manager = False
        self._changed = asyncio.Event()

    @property
    def may_place(self) -> bool:
        """Whether it may place instances: through the Swarm as a manager, or on itself if it is in no Swarm."""
        return self.is_manager or not self.id

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition about the membership holds."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def read(self) -> None:
        """Read the membership. Raises: EngineError, RuntimeUnavailableError."""
        info: Json = await self.engine.get("/info")
        swarm = info.get("Swarm") or {}
        active = swarm.get("LocalNodeState") == "active"
        before = (self.id, self.is_manager)
        self.id = str(swarm["NodeID"]) if active else ""
        self.is_manager = active and bool(swarm.get("ControlAvailable"))
        if (self.id, self.is_manager) != before:
            log.info("swarm membership read", id=self.id, manager=self.is_manager, state=swarm.get("LocalNodeState"))
            self._changed.set()

    async def follow(self) -> None:
        """Follow changes until cancelled; while the engine does not respond, the membership stays as it was."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.read()
            except KnollError as error:
                log.debug("swarm membership not read", error=str(error))

    def placer(self, platform: str, nodes: Callable[[], Mapping[str, str]], ahead: int) -> SwarmPlacer:
        """Return the placer of a platform, which this machine leads.

        Args:
            nodes: returns each responding node of the platform and its id in the Swarm.
            ahead: how many places without resource requests are created ahead of demand.
        """
        image = partial(reservation_image.ensure, self.engine)
        return SwarmPlacer(EngineSwarm(self.engine), platform, image, nodes, PlaceOptions(ahead))


@asynccontextmanager
async def member(socket: Path) -> AsyncIterator[SwarmMember]:
    """Provide this machine's membership in the Swarm, and keep it and the image of reservations up to date meanwhile.

    Args: socket: of its engine, or of the engine proxy.
    """
    engine = Engine(socket)
    try:
        await until_available(engine.open)
        own = SwarmMember(engine)
        await until_available(own.read)
        if not own.id:
            log.warning("machine is in no swarm: instances are placed on it alone")
        keeping = [asyncio.create_task(own.follow()), asyncio.create_task(_keep_image(own))]
        try:
            yield own
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
    finally:
        await engine.close()


async def _keep_image(own: SwarmMember) -> None:
    """Load the image, and load it again when it was removed: without it the machine rejects all reservations."""
    while True:
        await own.until(lambda: bool(own.id))
        try:
            await reservation_image.ensure(own.engine)
        except KnollError as error:
            log.warning("image of reservations not loaded", error=str(error))
        await asyncio.sleep(IMAGE_SECONDS)
