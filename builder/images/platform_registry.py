"""The platform's registry on several machines: images of engines are pushed there, and pulled by other engines."""

import asyncio
from pathlib import Path
from typing import Any

import structlog
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

from builder.images.engine_images import ARCHIVE_SECONDS, EngineImages, engine_at
from builder.images.other_engines import OtherEngines
from knoll.concurrency.backoff import Backoff
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.values.errors import ImageError, RuntimeUnavailableError
from knoll.values.platform_registry import REPOSITORY, image_name

log = structlog.get_logger()

TRIES = 8
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts to push an image: the registry is away while it collects garbage."""


class PlatformRegistry:
    """The registry, as the builder of one machine uses it."""

    def __init__(self, settings: BuilderSettings, redis: RedisClient, others: OtherEngines) -> None:
        """Args: settings: with `node` and `registry`."""
        self._settings, self._redis, self.others = settings, redis, others
        self._pushes: dict[str, asyncio.Task[None]] = {}

    async def provide(self, image_id: str) -> None:
        """Make sure that the registry has an image of some engine, so that every machine can start it.

        Raises: RuntimeUnavailableError: the registry does not respond, or no machine that responds has the image.
        """
        if await self._redis.execute("SISMEMBER", keys.REGISTRY_IMAGES, image_id):
            return None
        if await asyncio.to_thread(has_image, self._settings.docker_socket, image_id):
            return await self.push(image_id)
        reference = f"{REPOSITORY}@{image_id}"
        for image in (await self.others.images([reference])).by_reference.get(reference, ()):
            return await self.others.push(image.node, image_id)
        raise RuntimeUnavailableError(f"neither the platform's registry nor a machine that responds has {image_id}")

    async def push(self, image_id: str) -> None:
        """Push an image of the engine here. Raises: RuntimeUnavailableError, StoreUnavailableError."""
        task = self._pushes.get(image_id)
        if task is None:
            task = self._pushes[image_id] = asyncio.create_task(self._push(image_id))
            task.add_done_callback(lambda _: self._pushes.pop(image_id, None))
        await asyncio.shield(task)

    async def _push(self, image_id: str) -> None:
        backoff = Backoff(PAUSES)
        for attempt in range(1, TRIES + 1):
            try:
                await asyncio.to_thread(_pushed, self._settings.docker_socket, self._name(image_id), image_id)
                break
            except RuntimeUnavailableError as error:
                if attempt == TRIES:
                    raise
                log.warning("image not pushed yet", image=image_id, error=str(error))
            await backoff.wait()
        await self._redis.write(("SADD", keys.REGISTRY_IMAGES, image_id))
        log.info("image pushed to the platform's registry", image=image_id)

    async def fetch(self, image_id: str) -> None:
        """Make sure that the engine here has an image of another one.

        Raises: ImageError: the registry has another image under its id. RuntimeUnavailableError, StoreUnavailableError.
        """
        if await asyncio.to_thread(has_image, self._settings.docker_socket, image_id):
            return
        await self.provide(image_id)
        settings = self._settings
        await asyncio.to_thread(_pulled, settings.docker_socket, settings.platform, self._name(image_id), image_id)

    def _name(self, image_id: str) -> str:
        return image_name(self._settings.registry, self._settings.platform, image_id)


def _pushed(docker_socket: Path, name: str, image_id: str) -> None:
    repository, _, tag = name.rpartition(":")
    with engine_at(docker_socket, ARCHIVE_SECONDS) as engine:
        api: Any = engine.api
        try:
            # The name stays: the next push has less to do, and the clean-up removes it when nothing needs the image.
            api.tag(image_id, repository, tag)
            for line in api.push(repository, tag, stream=True, decode=True):
                if error := line.get("error"):
                    raise RuntimeUnavailableError(f"the platform's registry did not accept {image_id}: {error}")
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(f"{image_id} cannot be pushed to the platform's registry: {error}") from error


def _pulled(docker_socket: Path, platform: str, name: str, image_id: str) -> None:
    repository, _, tag = name.rpartition(":")
    with engine_at(docker_socket, ARCHIVE_SECONDS) as engine:
        images = EngineImages(engine, platform)
        try:
            engine.images.pull(repository, tag)
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(
                f"{image_id} cannot be pulled from the platform's registry: {error}"
            ) from error
        if images.describe(name)[0].id != image_id:
            raise ImageError(f"the platform's registry has another image as {name}")


def has_image(docker_socket: Path, image_id: str) -> bool:
    """Return whether the engine here has an image. Blocks. Raises: RuntimeUnavailableError."""
    with engine_at(docker_socket) as engine:
        try:
            engine.images.get(image_id)
        except ImageNotFound:
            return False
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(f"the container engine does not respond: {error}") from error
    return True
