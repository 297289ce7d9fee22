"""This machine in the Swarm: its id there, and whether it may place instances."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
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

log = structlog.get_logger()

IMAGE_SECONDS = 60.0
"""Interval at which the image of reservations is checked for."""


@dataclass(frozen=True, slots=True)
class SwarmMember:
    """This machine as a member of a Swarm, or of none."""

    engine: Engine
    id: str = ""
    """Its id in the Swarm; empty if it is in none."""
    is_manager: bool = False

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
    """Provide this machine's membership in the Swarm, and keep the image of reservations loaded meanwhile.

    It is read once: `knoll cluster init` and `knoll node join` change it before they start this process.

    Args: socket: of its engine, or of the engine proxy.
    """
    engine = Engine(socket)
    try:
        await until_available(engine.open)
        swarm = (await until_available(partial(engine.get, "/info"))).get("Swarm") or {}
        if swarm.get("LocalNodeState") != "active":
            log.warning("machine is in no swarm: instances are placed on it alone", state=swarm.get("LocalNodeState"))
            yield SwarmMember(engine)
            return
        keeping = asyncio.create_task(_keep_image(engine))
        try:
            yield SwarmMember(engine, swarm["NodeID"], bool(swarm.get("ControlAvailable")))
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    finally:
        await engine.close()


async def _keep_image(engine: Engine) -> None:
    """Load the image, and load it again when it was removed: without it the machine rejects all reservations."""
    while True:
        try:
            await reservation_image.ensure(engine)
        except KnollError as error:
            log.warning("image of reservations not loaded", error=str(error))
        await asyncio.sleep(IMAGE_SECONDS)
