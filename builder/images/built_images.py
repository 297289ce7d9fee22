"""Images that Builds made, by namespace: tags that are valid only in their namespace, and image ids."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.resources.validation.reserved_images import BUILT_PREFIX
from knoll.values.image_reference import DEFAULT_REGISTRY, parse_image


class BuiltImage(msgspec.Struct, frozen=True):
    """An image that a Build made."""

    tag: str
    """In the form of `canonical`."""
    id: str
    """`sha256:<64 hex>`."""
    made: float
    """Epoch seconds."""
    plain: bool = False
    """Whether the engine has it under its tag too, for use outside of the platform."""
    node: str = ""
    """The machine that made it; empty if the platform had a single one then."""


@dataclass(frozen=True, slots=True)
class NamespaceImages:
    """Images of the Builds of one namespace, and ids of those of the others."""

    images: tuple[BuiltImage, ...] = ()
    others: frozenset[str] = field(default_factory=frozenset)
    """Ids of images that Builds of other namespaces made, and no Build of this one."""

    def newest(self, reference: str) -> BuiltImage | None:
        """Return the image that a name refers to in the namespace."""
        name = canonical(reference)
        return max((image for image in self.images if image.tag == name), key=lambda image: image.made, default=None)

    def has(self, image_id: str) -> bool:
        """Return whether a Build of the namespace made the image."""
        return any(image.id == image_id for image in self.images)


def canonical(reference: str) -> str:
    """Return a reference in one form without digest: `shop` and `docker.io/library/shop` are both `shop:latest`."""
    image = parse_image(reference)
    registry = "" if image.registry in ("docker.io", DEFAULT_REGISTRY, "registry-1.docker.io") else image.registry
    path = image.path if registry else image.path.removeprefix("library/")
    return f"{registry}/{path}:{image.tag or 'latest'}" if registry else f"{path}:{image.tag or 'latest'}"


def engine_name(platform: str, namespace: str, image_id: str) -> str:
    """Return the name under which the engine keeps an image of a namespace."""
    return f"{BUILT_PREFIX}/{platform}/{namespace}:{image_id.removeprefix('sha256:')[:32]}"


class BuiltImages:
    """The records in Redis. An image has a record only while the engine, or the platform's registry, has it."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def record(self, namespace: str, image: BuiltImage) -> None:
        """Add an image that the engine has under `engine_name`."""
        await self._redis.write(
            ("SADD", keys.NAMESPACES_WITH_IMAGES, namespace),
            ("HSET", keys.built_images(namespace), _field(image), msgspec.json.encode(image)),
        )

    async def forget(self, namespace: str, images: Iterable[BuiltImage]) -> None:
        """Remove records of images that the engine no longer has, or keeps for others only."""
        fields = [_field(image) for image in images]
        if fields:
            await self._redis.execute("HDEL", keys.built_images(namespace), *fields)

    async def of(self, namespace: str) -> NamespaceImages:
        """Return the images of a namespace."""
        everything = await self.all()
        own = everything.get(namespace, ())
        ids = {image.id for image in own}
        foreign = {image.id for other, images in everything.items() if other != namespace for image in images}
        return NamespaceImages(tuple(own), frozenset(foreign - ids))

    async def all(self) -> Mapping[str, tuple[BuiltImage, ...]]:
        """Return all images by namespace."""
        members = await self._redis.execute("SMEMBERS", keys.NAMESPACES_WITH_IMAGES)
        names = sorted(name.decode() for name in members)
        values = await self._redis.pipeline(*(("HGETALL", keys.built_images(name)) for name in names))
        decoder = msgspec.json.Decoder(BuiltImage)
        return {
            name: tuple(decoder.decode(value) for value in listed.values())
            for name, listed in zip(names, values, strict=True)
            if listed
        }


def _field(image: BuiltImage) -> str:
    return f"{image.tag} {image.id}"
