"""What nobody needs any more is taken off the disk: images built or pulled for us, pins, uploads, the builds' cache."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docker
import structlog
from docker.errors import APIError, DockerException, ImageNotFound
from redis.asyncio import Redis
from requests.exceptions import RequestException

from builder.images import engine_at, pin_of, pin_repository
from knoll import jobs, keys, kinds
from knoll.connect import answering
from knoll.errors import RuntimeUnavailableError
from knoll.settings import BuilderSettings
from knoll.store import Json, Store
from knoll.tables import Table

log = structlog.get_logger()

KEEP_UPLOAD_SECONDS = 24 * 3600
"""Since it was sent, or asked for: the next build of the same source need not send it again."""


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
    """Uploads that a Build may still read. Pure."""
    over = ("Succeeded", "Failed")
    wanted = (found for found in builds if (found.get("status") or {}).get("phase") not in over)
    return {found["spec"]["source"]["upload"]["id"] for found in wanted if found["spec"]["source"].get("upload")}


async def prune(settings: BuilderSettings, redis: "Redis", store: Store, answers: Table[jobs.Resolution]) -> None:
    """Take away what no Build, no Revision and no look-up's answer needs."""
    revisions = (await store.list(kinds.REVISION.id)).items
    builds = (await store.list(kinds.BUILD_KIND.id)).items
    _, resolved = await answers.snapshot()
    needed = images_of(revisions)
    needed |= {image.digest for _, answer in resolved.values() for image in answer.images}
    tags = {str(found["spec"]["tag"]) for found in builds}
    remove_uploads(settings.uploads_dir, uploads_of(builds), time.time())
    built = {member.decode() for member in await _members(redis, keys.BUILT_IMAGES)}
    pulled = {member.decode() for member in await _members(redis, keys.PULLED_IMAGES)}
    gone = await asyncio.to_thread(_take_away, settings, needed, built - tags - needed, pulled - needed)
    for key, names in zip((keys.BUILT_IMAGES, keys.PULLED_IMAGES), gone, strict=True):
        if names:
            with answering():
                await redis.srem(key, *names)


async def _members(redis: "Redis", key: str) -> Any:
    with answering():
        return await redis.smembers(key)


def _take_away(
    settings: BuilderSettings, needed: set[str], built: set[str], pulled: set[str]
) -> tuple[list[str], list[str]]:
    """Drop names of images on the engine; returns those of `built` and those of `pulled` that are gone."""
    with engine_at(settings.docker_socket) as client:
        try:
            engine = _Engine(client, settings.platform)
            engine.unpin(needed)
            gone = ([tag for tag in sorted(built) if engine.untag(tag)],
                    [name for name in sorted(pulled) if engine.untag(name)])  # fmt: skip
            engine.bound_cache(settings.build_cache_bytes)
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(f"the container engine does not answer: {error}") from error
        return gone


def remove_uploads(folder: Path, wanted: set[str], now: float) -> None:
    """Remove archives that no Build will read and nobody has asked for in a day."""
    for path in folder.glob("sha256-*"):
        if path.suffix or path.name in wanted:
            continue
        if path.stat().st_mtime < now - KEEP_UPLOAD_SECONDS:
            path.unlink(missing_ok=True)
            log.info("upload removed", id=path.name)


class _Engine:
    def __init__(self, client: docker.DockerClient, platform: str) -> None:
        self._client = client
        self._platform = platform

    def unpin(self, needed: set[str]) -> None:
        """Drop this platform's pins of images that are not needed."""
        ids = {found for reference in needed if (found := self._id(reference))}
        pins = {pin_of(self._platform, found) for found in ids}
        for image in self._client.images.list(name=pin_repository(self._platform)):
            for tag in set(image.tags) - pins:
                if tag.startswith(f"{pin_repository(self._platform)}:"):
                    self.untag(tag)

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

    def bound_cache(self, most: int) -> None:
        """Bound what BuildKit keeps, least recently used first; 0 leaves it alone."""
        if most:
            self._client.api.prune_builds(keep_storage=most)

    def _id(self, reference: str) -> str:
        _, _, digest = reference.partition("@")
        for name in (reference, digest):
            if name:
                try:
                    return str(self._client.images.get(name).id)
                except (ImageNotFound, APIError):
                    continue
        return ""
