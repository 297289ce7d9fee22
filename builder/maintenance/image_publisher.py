"""Pushes images that only an engine has to the platform's registry, on several machines.

Images are pushed when they are built and when a Revision is pinned to them. What is missing all the same is pushed
here: a platform on a single machine became the first of several, or the registry has lost its data.
"""

import asyncio
from collections.abc import Collection, Mapping

from builder.images.engine_images import EngineImages, engine_at
from builder.images.platform_registry import PlatformRegistry
from builder.maintenance.pruning import Needs
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.values.errors import ImageError


def missing(needs: Needs, node: str, present: Collection[str]) -> dict[str, str]:
    """Return the images that the engine of a machine may have to push: ids, and repositories that may have them.

    The repository is empty for an image of a Build. The digest of a Revision may be one that its registry has.

    Args:
        node: name of the machine.
        present: ids of the images that the platform's registry has.
    """
    candidates = {}
    for reference in needs.references:
        repository, _, digest = reference.partition("@")
        if digest and digest not in present:
            candidates[digest] = repository
    for images in needs.built.values():
        candidates |= {image.id: "" for image in images if image.node in ("", node) and image.id not in present}
    return candidates


class ImagePublisher:
    """The publisher of one machine."""

    def __init__(self, settings: BuilderSettings, redis: RedisClient, registry: PlatformRegistry) -> None:
        self._settings, self._redis, self._registry = settings, redis, registry
        self._others: set[str] = set()
        """Digests that are no images of the engine here, or that their registries have."""

    def look_again(self) -> None:
        """Look for all images again: one may have been loaded into the engine."""
        self._others.clear()

    async def publish(self, needs: Needs) -> None:
        """Push what is missing. Raises: RuntimeUnavailableError, StoreUnavailableError."""
        present = {each.decode() for each in await self._redis.execute("SMEMBERS", keys.REGISTRY_IMAGES)}
        candidates = missing(needs, self._settings.node, present | self._others)
        if not candidates:
            return
        ours = await asyncio.to_thread(self._ours, candidates)
        self._others |= candidates.keys() - ours
        for image_id in ours:
            await self._registry.push(image_id)

    def _ours(self, candidates: Mapping[str, str]) -> list[str]:
        ours = []
        with engine_at(self._settings.docker_socket) as engine:
            images = EngineImages(engine, self._settings.platform)
            for image_id, repository in sorted(candidates.items()):
                try:
                    image = images.describe(image_id)[0]
                except ImageError:
                    continue
                if not repository or not image.digest_in(repository):
                    ours.append(image.id)
        return ours
