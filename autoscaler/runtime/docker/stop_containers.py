"""Stopping, freezing and removing containers of an instance."""

from collections.abc import Sequence
from typing import Literal

import structlog

from autoscaler.runtime.docker.engine import NOT_MODIFIED, Engine, EngineError
from autoscaler.runtime.docker.listing import ListedContainer
from knoll.values.errors import KnollError, RuntimeUnavailableError

log = structlog.get_logger()

KILL_SECONDS = 60.0
"""Time beyond the grace period for the engine to send SIGKILL and to respond."""


class ContainerStopper:
    """Stops and removes containers; keeps nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def stop(self, container: ListedContainer, grace_seconds: float) -> None:
        """Send SIGTERM, and SIGKILL after the grace period; a frozen container is resumed first.

        Raises:
            RuntimeUnavailableError: the engine refuses.
        """
        if container.state == "paused":
            await self.freeze(container, "unpause")
        if not container.alive:
            return
        try:
            if grace_seconds <= 0:
                await self._engine.post(f"/containers/{container.id}/kill")
            await self._engine.post(
                f"/containers/{container.id}/stop",
                query={"t": max(0, round(grace_seconds))},
                seconds=grace_seconds + KILL_SECONDS,
            )
        except EngineError as error:
            if error.status not in (NOT_MODIFIED, 404, 409):  # it has ended meanwhile
                raise RuntimeUnavailableError(f"the engine cannot stop {container.name}: {error}") from error

    async def freeze(self, container: ListedContainer, action: Literal["pause", "unpause"]) -> None:
        """Freeze or resume a container.

        Raises:
            RuntimeUnavailableError: the engine refuses.
        """
        try:
            await self._engine.post(f"/containers/{container.id}/{action}")
        except EngineError as error:
            if error.status not in (404, 409, 500) or "paused" not in str(error):
                raise RuntimeUnavailableError(f"the engine cannot {action} {container.name}: {error}") from error

    async def remove_all(self, ids: Sequence[str]) -> None:
        """Remove containers; one that cannot be removed now is removed by its label later."""
        for container_id in ids:
            try:
                await self._engine.remove(container_id)
            except KnollError as error:
                log.warning("container left behind", container=container_id, error=str(error))
