"""Images of instances: pulled with the credentials of their Revision, and recorded for the image clean-up."""

from functools import partial

from autoscaler.runtime.protocol import Runtime
from knoll.auth import registry_secrets
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import NotFoundError


class ImagePuller:
    """Provides images on the engine."""

    def __init__(self, runtime: Runtime, store: Store, redis: RedisClient, node: str = "") -> None:
        """Args: node: name of this machine; empty on a single one."""
        self._runtime, self._store, self._redis = runtime, store, redis
        self._pulled = keys.pulled_images(node)

    async def ensure(self, revision: str, image: str) -> None:
        """Pull an image of a Revision, `namespace/name`, when it is missing.

        Raises: ImageError, StoreUnavailableError.
        """
        await self._runtime.ensure_image(image, credentials=partial(self._before_pull, revision, image))

    async def _before_pull(self, revision: str, image: str) -> RegistryCredentials:
        """Called only for missing images: these reads are short compared with a pull."""
        namespace, _, name = revision.partition("/")
        # Before the pull: the clean-up never removes an image that was pulled and not recorded.
        await self._redis.write(("SADD", self._pulled, image))
        try:
            body = await self._store.get(kinds.REVISION.id, namespace, name)
        except NotFoundError:
            return RegistryCredentials()
        return await registry_secrets.read(self._store, namespace, body["spec"])
