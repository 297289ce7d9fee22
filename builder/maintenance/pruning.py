"""Removes from the disk what is no longer needed: images built or pulled for us, pins, uploads, layers."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import structlog
from docker.errors import APIError, DockerException, ImageNotFound
from redis.asyncio import Redis
from requests.exceptions import RequestException

from builder.images.built_images import BuiltImage, BuiltImages, canonical, engine_name
from builder.images.engine_images import engine_at, pin_of, pin_repository
from builder.images.layers import Layers
from knoll.messages import builds as jobs
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.redis.client import translate_errors
from knoll.store.protocol import Store
from knoll.tables.protocol import Table
from knoll.values import kinds
from knoll.values.errors import RuntimeUnavailableError
from knoll.values.json import Json

log = structlog.get_logger()

KEEP_UPLOAD_SECONDS = 24 * 3600
"""Since it was sent, or asked for: the next build of the same source need not send it again."""

GRACE_SECONDS = 600
"""Since a Build made an image: a Revision may be about to name it."""


def images_of(revisions: Iterable[Json]) -> set[str]:
    """Every image that Revisions name or were pinned to. Pure."""
    found: set[str] = set()
    for revision in revisions:
        spec, status = revision["spec"], revision.get("status") or {}
        found |= {one["image"] for one in [*spec["containers"], *spec.get("initContainers", [])]}
        listed = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
        found |= {one["imageDigest"] for one in listed if one.get("imageDigest")}
    return found


def uploads_of(builds: Iterable[Json]) -> set[str]:
    """Uploads that a Build may still read, `namespace/id`. Pure."""
    over = ("Succeeded", "Failed")
    wanted = (found for found in builds if (found.get("status") or {}).get("phase") not in over)
    return {
        f"{found['metadata']['namespace']}/{found['spec']['source']['upload']['id']}"
        for found in wanted
        if found["spec"]["source"].get("upload")
    }


def superfluous(
    images: Mapping[str, Sequence[BuiltImage]],
    named: Collection[tuple[str, str]],
    needed_ids: Collection[str],
    now: float,
) -> list[tuple[str, BuiltImage]]:
    """Images that Builds made and nothing needs any more, with their namespace. Pure.

    The newest of a name stays while a Build or a Revision of its namespace has that name; every image stays for a
    while, since a Revision may be about to name it.

    Args:
        named: namespace and canonical name of what Builds make and Revisions name.
        needed_ids: ids of images that Revisions were resolved to.
        now: epoch seconds.
    """
    found = []
    for namespace, listed in images.items():
        newest = {image.tag: image for image in sorted(listed, key=lambda image: image.made)}
        for image in listed:
            current = newest[image.tag] == image and (namespace, image.tag) in named
            if not current and image.id not in needed_ids and image.made < now - GRACE_SECONDS:
                found.append((namespace, image))
    return found


def names_of(builds: Iterable[Json], revisions: Iterable[Json]) -> set[tuple[str, str]]:
    """Namespace and canonical name of what Builds make and Revisions name. Pure."""
    found = {(one["metadata"]["namespace"], str(one["spec"]["tag"])) for one in builds}
    for revision in revisions:
        spec = revision["spec"]
        containers = [*spec["containers"], *spec.get("initContainers", [])]
        found |= {(revision["metadata"]["namespace"], str(one["image"])) for one in containers}
    canonical_names = set()
    for namespace, reference in found:
        with contextlib.suppress(ValueError):
            canonical_names.add((namespace, canonical(reference)))
    return canonical_names


async def prune(settings: BuilderSettings, redis: "Redis", store: Store, answers: Table[jobs.Resolution]) -> None:
    """Take away what no Build, no Revision and no look-up's answer needs."""
    revisions = (await store.list(kinds.REVISION.id)).items
    builds = (await store.list(kinds.BUILD_KIND.id)).items
    _, resolved = await answers.snapshot()
    needed = images_of(revisions)
    needed |= {image.digest for _, answer in resolved.values() for image in answer.images}
    now = time.time()
    remove_uploads(settings.uploads_dir, uploads_of(builds), now)
    Layers(settings.layers_dir).prune(settings.build_cache_bytes, settings.build_timeout_seconds, now)
    record = BuiltImages(redis)
    built, named = await record.all(), names_of(builds, revisions)
    pulled = {member.decode() for member in await _members(redis, keys.PULLED_IMAGES)}
    gone, unpulled = await asyncio.to_thread(_take_away, settings, needed, built, named, pulled - needed, now)
    for namespace, image in gone:
        await record.forget(namespace, [image])
    if unpulled:
        with translate_errors():
            await redis.srem(keys.PULLED_IMAGES, *unpulled)


async def _members(redis: "Redis", key: str) -> Any:
    with translate_errors():
        return await redis.smembers(key)


def _take_away(
    settings: BuilderSettings,
    needed: set[str],
    built: Mapping[str, Sequence[BuiltImage]],
    named: set[tuple[str, str]],
    pulled: set[str],
    now: float,
) -> tuple[list[tuple[str, BuiltImage]], list[str]]:
    """Drop names of images on the engine; returns what is gone of `built` and of `pulled`."""
    with engine_at(settings.docker_socket) as client:
        try:
            engine = _Engine(client, settings.platform)
            ids = engine.ids_of(needed)
            engine.unpin(ids)
            unneeded = superfluous(built, named, ids, now)
            gone = [
                (namespace, image)
                for namespace, image in unneeded
                if engine.forget(
                    namespace, image, [one for one in built[namespace] if (namespace, one) not in unneeded]
                )
            ]
            return gone, [name for name in sorted(pulled) if engine.untag(name)]
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(f"the container engine does not answer: {error}") from error


def remove_uploads(folder: Path, wanted: set[str], now: float) -> None:
    """Remove archives that no Build will read and that were not used for a day. Args: wanted: `namespace/id`."""
    for path in folder.rglob("sha256-*"):
        if path.suffix or str(path.relative_to(folder)) in wanted:
            continue
        if path.stat().st_mtime < now - KEEP_UPLOAD_SECONDS:
            path.unlink(missing_ok=True)
            log.info("upload removed", id=path.name)


class _Engine:
    def __init__(self, client: docker.DockerClient, platform: str) -> None:
        self._client = client
        self._platform = platform

    def ids_of(self, references: Iterable[str]) -> set[str]:
        """Ids of those images that are on the engine."""
        return {found for reference in references if (found := self._id(reference))}

    def unpin(self, needed: set[str]) -> None:
        """Drop this platform's pins of images that are not needed. Args: needed: ids."""
        pins = {pin_of(self._platform, found) for found in needed}
        for image in self._client.images.list(name=pin_repository(self._platform)):
            for tag in set(image.tags) - pins:
                if tag.startswith(f"{pin_repository(self._platform)}:"):
                    self.untag(tag)

    def forget(self, namespace: str, image: BuiltImage, kept: Sequence[BuiltImage]) -> bool:
        """Drop the names that an image has for its Build alone; returns whether they are gone.

        Args: kept: the namespace's other images, which stay.
        """
        if image.plain and self._id(image.tag) == image.id and not self.untag(image.tag):
            return False
        if any(other.id == image.id for other in kept):
            return True  # the same image under another name
        return self.untag(engine_name(self._platform, namespace, image.id))

    def untag(self, tag: str) -> bool:
        """Drop a name, the image goes with its last one; returns whether it is gone."""
        try:
            self._client.images.remove(tag)
            log.info("image removed", image=tag)
        except ImageNotFound:
            return True
        except APIError as error:
            # A container that nobody has taken away yet: the next round comes by.
            log.info("image kept", image=tag, why=str(error.explanation or error))
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
