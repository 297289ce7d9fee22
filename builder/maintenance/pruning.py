"""Removes what is no longer needed from the disk: built and pulled images, pins, uploads and layers."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import structlog
from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from builder.images.built_images import BuiltImage, BuiltImages, canonical, engine_name
from builder.images.engine_images import engine_at, pin_of, pin_repository
from builder.images.layers import Layers
from builder.maintenance.leftovers import Leftovers
from knoll.messages import builds as jobs
from knoll.messages.builds import BuildPhase
from knoll.messages.nodes import NODES, Node
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.resources.validation.reserved_images import BUILT_PREFIX
from knoll.store.protocol import Store
from knoll.tables.protocol import Table
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import RuntimeUnavailableError
from knoll.values.json import Json
from knoll.values.platform_registry import image_name, repository

log = structlog.get_logger()

KEEP_UPLOAD_SECONDS = 24 * 3600
"""Time after its last upload or use at which an upload is removed; until then the same source is not sent again."""

GRACE_SECONDS = 600
"""Age until which the image of a Build is kept: a Revision may be about to name it."""


def images_of(revisions: Iterable[Json]) -> set[str]:
    """Return every image that Revisions name or were resolved to."""
    images: set[str] = set()
    for revision in revisions:
        spec, status = revision["spec"], revision.get("status") or {}
        images |= {container["image"] for container in [*spec["containers"], *spec.get("initContainers", [])]}
        statuses = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
        images |= {container["imageDigest"] for container in statuses if container.get("imageDigest")}
    return images


def uploads_of(builds: Iterable[Json]) -> set[str]:
    """Return the uploads that a Build may still read, as `namespace/id`."""
    over = (BuildPhase.SUCCEEDED, BuildPhase.FAILED)
    unfinished = (build for build in builds if (build.get("status") or {}).get("phase") not in over)
    return {
        f"{build['metadata']['namespace']}/{build['spec']['source']['upload']['id']}"
        for build in unfinished
        if build["spec"]["source"].get("upload")
    }


def superfluous(
    images: Mapping[str, Sequence[BuiltImage]],
    named: Collection[tuple[str, str]],
    needed_ids: Collection[str],
    now: float,
) -> list[tuple[str, BuiltImage]]:
    """Return the images that Builds made and that are no longer needed, with their namespaces.

    The newest image of a name is kept while a Build or a Revision of its namespace has that name; every image is kept
    for GRACE_SECONDS.

    Args:
        named: namespace and canonical name of the images of Builds and Revisions.
        needed_ids: ids of images that Revisions were resolved to.
        now: epoch seconds.
    """
    unneeded = []
    for namespace, listed in images.items():
        newest = {image.tag: image for image in sorted(listed, key=lambda image: image.made)}
        for image in listed:
            current = newest[image.tag] == image and (namespace, image.tag) in named
            if not current and image.id not in needed_ids and image.made < now - GRACE_SECONDS:
                unneeded.append((namespace, image))
    return unneeded


def names_of(builds: Iterable[Json], revisions: Iterable[Json]) -> set[tuple[str, str]]:
    """Return namespace and canonical name of the images of Builds and Revisions."""
    references = {(build["metadata"]["namespace"], str(build["spec"]["tag"])) for build in builds}
    for revision in revisions:
        spec = revision["spec"]
        containers = [*spec["containers"], *spec.get("initContainers", [])]
        references |= {(revision["metadata"]["namespace"], str(container["image"])) for container in containers}
    canonical_names = set()
    for namespace, reference in references:
        with contextlib.suppress(ValueError):
            canonical_names.add((namespace, canonical(reference)))
    return canonical_names


def ids_in(references: Iterable[str]) -> set[str]:
    """Return the digests of references. Those of local images are their ids, also on engines that lack the image."""
    return {digest for reference in references if (digest := reference.partition("@")[2])}


@dataclass(frozen=True, slots=True)
class Needs:
    """What is needed on any machine, as the store and the tables say."""

    references: set[str]
    """Images that Revisions name or were resolved to."""
    uploads: set[str]
    names: set[tuple[str, str]]
    built: Mapping[str, Sequence[BuiltImage]]

    @property
    def ids(self) -> set[str]:
        """Ids of the images that the platform's registry keeps."""
        return ids_in(self.references) | {image.id for listed in self.built.values() for image in listed}


async def needs(redis: RedisClient, store: Store, answers: Table[jobs.Resolution]) -> Needs:
    """Read what is needed. Raises: StoreUnavailableError."""
    revisions = (await store.list(kinds.REVISION.id)).items
    builds = (await store.list(kinds.BUILD_KIND.id)).items
    _, resolved = await answers.snapshot()
    references = images_of(revisions) | {image.digest for _, answer in resolved.values() for image in answer.images}
    return Needs(references, uploads_of(builds), names_of(builds, revisions), await BuiltImages(redis).all())


async def prune(
    settings: BuilderSettings,
    redis: RedisClient,
    store: Store,
    answers: Table[jobs.Resolution],
    leftovers: Leftovers | None = None,
) -> Needs:
    """Remove everything of this machine that no Build, no Revision and no result of a look-up needs.

    Args: leftovers: of this machine, on several.

    Returns: what is needed.
    """
    required = await needs(redis, store, answers)
    now = time.time()
    remove_uploads(settings.uploads_dir, required.uploads, now)
    Layers(settings.layers_dir).prune(settings.build_cache_bytes, settings.build_timeout_seconds, now)
    record, pulls = BuiltImages(redis), [keys.pulled_images(settings.node)]
    if settings.node and settings.registry_url:
        pulls.append(keys.pulled_images(""))  # by the machine with the registry, when it was the only one
    lost = await _lost_machines(settings, redis, required.built)
    pulled = {member.decode() for key in pulls for member in await redis.execute("SMEMBERS", key)}
    gone, unpulled = await asyncio.to_thread(_remove_images, settings, required, pulled, lost, leftovers)
    for namespace, image in gone:
        await record.forget(namespace, [image])
    if unpulled:
        await redis.pipeline(*(("SREM", key, *unpulled) for key in pulls))
    return required


async def _lost_machines(
    settings: BuilderSettings, redis: RedisClient, built: Mapping[str, Sequence[BuiltImage]]
) -> set[str]:
    """Return the machines whose records the machine with the registry removes: those that do not run.

    The empty name stands for what was built before there were several machines.
    """
    if not (settings.node and settings.registry_url):
        return set()
    _, alive = await RedisTable(redis, NODES, Node).snapshot()
    return {image.node for listed in built.values() for image in listed} - alive.keys()


def _remove_images(
    settings: BuilderSettings, required: Needs, pulled: set[str], lost: set[str], leftovers: Leftovers | None
) -> tuple[list[tuple[str, BuiltImage]], list[str]]:
    """Remove names of images on the engine; returns the removed images of Builds, and the removed ones of `pulled`."""
    built, now = required.built, time.time()
    with engine_at(settings.docker_socket) as client:
        try:
            engine = _Engine(client, settings.platform)
            ids = engine.ids_of(required.references) | ids_in(required.references)
            engine.unpin(ids)
            unneeded = superfluous(built, required.names, ids, now)
            ours = [each for each in unneeded if each[1].node == settings.node or each[1].node in lost]
            gone = [
                (namespace, image)
                for namespace, image in ours
                if engine.forget(
                    namespace, image, [other for other in built[namespace] if (namespace, other) not in unneeded]
                )
            ]
            if leftovers:
                kept = [
                    (name, image) for name, listed in built.items() for image in listed if (name, image) not in gone
                ]
                for tag in leftovers.due(engine.unneeded(settings.registry, kept, ids), time.monotonic()):
                    engine.untag(tag)
            return gone, [name for name in sorted(pulled - required.references) if engine.untag(name)]
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(f"the container engine does not respond: {error}") from error


def remove_uploads(folder: Path, needed: set[str], now: float) -> None:
    """Remove archives that no Build will read and that were not used for a day. Args: needed: `namespace/id`."""
    for path in folder.rglob("sha256-*"):
        if path.suffix or str(path.relative_to(folder)) in needed:
            continue
        if path.stat().st_mtime < now - KEEP_UPLOAD_SECONDS:
            path.unlink(missing_ok=True)
            log.info("upload removed", id=path.name)


class _Engine:
    def __init__(self, client: docker.DockerClient, platform: str) -> None:
        self._client = client
        self._platform = platform

    def ids_of(self, references: Iterable[str]) -> set[str]:
        """Return the ids of those images that are on the engine."""
        return {image_id for reference in references if (image_id := self._id(reference))}

    def unpin(self, needed: set[str]) -> None:
        """Remove this platform's pins of images that are not needed. Args: needed: ids."""
        pins = {pin_of(self._platform, image_id) for image_id in needed}
        for image in self._client.images.list(name=pin_repository(self._platform)):
            for tag in set(image.tags) - pins:
                if tag.startswith(f"{pin_repository(self._platform)}:"):
                    self.untag(tag)

    def forget(self, namespace: str, image: BuiltImage, kept: Sequence[BuiltImage]) -> bool:
        """Remove the names that an image has for its Build only; returns whether they are gone.

        Args: kept: the other images of the namespace, which are kept.
        """
        if image.plain and self._id(image.tag) == image.id and not self.untag(image.tag):
            return False
        if any(other.id == image.id for other in kept):
            return True  # the same image under another name
        return self.untag(engine_name(self._platform, namespace, image.id))

    def unneeded(self, registry: str, kept: Iterable[tuple[str, BuiltImage]], ids: Collection[str]) -> set[str]:
        """Return this platform's names of images that nothing needs, on several machines.

        Args:
            registry: the platform's, as the engine reaches it.
            kept: namespace and image of all Builds' images that are recorded, on any machine.
            ids: images that Revisions need.
        """
        kept = list(kept)
        needed = {engine_name(self._platform, namespace, image.id) for namespace, image in kept}
        needed |= {image_name(registry, self._platform, each) for each in {*ids, *(image.id for _, image in kept)}}
        patterns = (f"{BUILT_PREFIX}/{self._platform}/*", f"{registry}/{repository(self._platform)}")
        names = {tag for pattern in patterns for image in self._client.images.list(name=pattern) for tag in image.tags}
        own = tuple(pattern.removesuffix("*") for pattern in patterns)
        return {name for name in names if name.startswith(own)} - needed

    def untag(self, tag: str) -> bool:
        """Remove a name, and the image with its last name; returns whether the name is gone."""
        try:
            self._client.images.remove(tag)
            log.info("image removed", image=tag)
        except ImageNotFound:
            return True
        except APIError as error:
            # A container still uses it: the next clean-up tries again.
            log.info("image kept", image=tag, reason=str(error.explanation or error))
            return False
        return True

    def _id(self, reference: str) -> str:
        _, _, digest = reference.partition("@")
        for name in (reference, digest):
            if name:
                try:
                    return str(self._client.images.get(name).id)
                except (ImageNotFound, APIError):
                    continue
        return ""
