"""From a Build's spec to an image of its namespace on the engine."""

import asyncio
import json
import time
from dataclasses import dataclass, replace

from docker.utils import parse_repository_tag
from redis.asyncio import Redis

from builder.build import buildkit, buildx
from builder.build.build_inputs import Docker, Work, prepared
from builder.build.progress_reporter import ProgressReporter
from builder.images.access import Access, is_near
from builder.images.built_images import BuiltImage, BuiltImages, canonical, engine_name
from builder.images.engine_images import ARCHIVE_SECONDS, EngineImages, LocalImage, engine_at, local_digest
from builder.images.layers import Layers
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.redis.client import translate_errors
from knoll.store.protocol import Store
from knoll.values.errors import ImageError
from knoll.values.json import Json


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """Why there is no image, or why it was not pushed."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class BuiltResult:
    """The image of a Build that succeeded."""

    digest: str
    """`repo@sha256:…`, as `jobs.BuildProgress`."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class ImageBuilder:
    """What one Build is carried out with."""

    settings: BuilderSettings
    redis: "Redis"
    store: Store
    access: Access
    docker: Docker
    output: ProgressReporter
    namespace: str
    spec: Json

    async def make(self) -> BuiltResult | BuildFailure:
        """Build or pull, keep the image for the namespace, push it if the Build says so.

        Raises: SourceError, ImageError, BuildKitUnavailableError, RuntimeUnavailableError, StoreUnavailableError.
        """
        image = self.spec["source"].get("image")
        if image:
            image_id: str | BuildFailure = await self._mirrored(image)
        else:
            async with prepared(self.docker, self.store, self.settings, self.access, self.namespace, self.spec) as work:
                image_id = await self._built(work)
        if isinstance(image_id, BuildFailure):
            return image_id
        plain = await self._keep(image_id)
        if self.spec.get("push") and (why := await self._push(image_id, plain=plain)):
            tag = self.spec["tag"]
            return BuildFailure("PushFailed", f'the image was built, but "{tag}" could not be pushed: {why}')
        return await asyncio.to_thread(self._described, image_id)

    async def _built(self, work: Work) -> str | BuildFailure:
        """Id of the image that BuildKit made, which the engine has by then."""
        await buildkit.until_it_answers(self.settings)
        layers = Layers(self.settings.layers_dir)
        await asyncio.to_thread(layers.prepare)
        sources, bases = await self._handed_over(work.images, layers)
        metadata = work.folder / "metadata.json"
        words = buildx.command(replace(work.recipe, images=sources), layers.folder, metadata)
        if why := await self.docker(*words, archive=work.archive):
            return BuildFailure("BuildFailed", why)
        told = json.loads(metadata.read_text())
        before = self.access.built.newest(self.spec["tag"])
        relatives = [*bases, *([before.id] if before else [])]
        name = engine_name(self.settings.platform, self.namespace, told["containerimage.config.digest"])
        return await asyncio.to_thread(self._load, layers, told["containerimage.digest"], name, relatives)

    def _load(self, layers: Layers, digest: str, name: str, relatives: list[str]) -> str:
        with engine_at(self.settings.docker_socket, ARCHIVE_SECONDS) as engine:
            return layers.load(engine, digest, name, relatives)

    async def _handed_over(self, names: tuple[str, ...], layers: Layers) -> tuple[dict[str, str], list[str]]:
        """What BuildKit gets from the engine of what a Dockerfile names: sources by name, and the ids of the images."""
        sources, ids = {}, []
        for name in names:
            try:
                image_id = await self._near(name)
            except ValueError:
                continue  # not a reference: BuildKit says what is wrong with it
            if image_id:
                digest = await asyncio.to_thread(self._saved, layers, image_id)
                sources[name] = f"oci-layout://{layers.folder}@{digest}"
                ids.append(image_id)
        return sources, ids

    async def _near(self, name: str) -> str:
        """Id of an image that is on the engine or comes through it; empty for what BuildKit gets by itself."""
        local = await asyncio.to_thread(self._find, name)
        if local:
            return local.id
        if not await asyncio.to_thread(is_near, name):
            return ""
        why = await self._pull(name)
        if why:
            raise ImageError(f'image "{name}" cannot be pulled: {why}')
        return (await asyncio.to_thread(self._describe, name)).id

    async def _pull(self, name: str) -> str:
        """Pull an image to the engine, from where it is removed again; returns what failed."""
        await asyncio.to_thread(self.access.check_registry, name)
        platform = ["--platform", self.spec["platform"]] if self.spec.get("platform") else []
        with translate_errors():
            await self.redis.sadd(keys.PULLED_IMAGES, name)
        return await self.docker("pull", *platform, name)

    def _saved(self, layers: Layers, image_id: str) -> str:
        with engine_at(self.settings.docker_socket, ARCHIVE_SECONDS) as engine:
            return layers.save(engine, image_id)

    async def _mirrored(self, name: str) -> str | BuildFailure:
        """Id of an image that exists already and is on the engine by then."""
        repository = parse_repository_tag(name)[0]
        local = await asyncio.to_thread(self._find, name)
        # One that its registry has may have changed there.
        if local is None or local.digest_in(repository):
            try:
                why = await self._pull(name)
            except ImageError as error:
                why = str(error)
            if why:
                return BuildFailure("BuildFailed", why)
            local = await asyncio.to_thread(self._describe, name)
        with engine_at(self.settings.docker_socket) as engine:
            kept = engine_name(self.settings.platform, self.namespace, local.id)
            await asyncio.to_thread(EngineImages(engine, self.settings.platform).tag, local.id, kept)
        return local.id

    def _find(self, name: str) -> LocalImage | None:
        with engine_at(self.settings.docker_socket) as engine:
            return EngineImages(engine, self.settings.platform, self.access).find(name)

    def _describe(self, name: str) -> LocalImage:
        with engine_at(self.settings.docker_socket) as engine:
            return EngineImages(engine, self.settings.platform).describe(name)[0]

    async def _keep(self, image_id: str) -> bool:
        """Record the image as the namespace's; returns whether the engine has it under its own name too."""
        tag = self.spec["tag"]
        plain = not self.access.tenants and await asyncio.to_thread(self._take_plain_name, image_id)
        if not plain and not self.access.tenants:
            await self.output.line(
                f'note: "{tag}" is another image on the engine already, which stays; Services of the namespace '
                f"{self.namespace} get this one by that name"
            )
        made = BuiltImage(canonical(tag), image_id, time.time(), plain)
        await BuiltImages(self.redis).record(self.namespace, made)
        return plain

    def _take_plain_name(self, image_id: str) -> bool:
        """Tag the image by its name where that is free, or stands for what a Build of this namespace made."""
        tag = self.spec["tag"]
        ours = {image.id for image in self.access.built.images if image.plain and image.tag == canonical(tag)}
        with engine_at(self.settings.docker_socket) as engine:
            images = EngineImages(engine, self.settings.platform)
            try:
                present = images.describe(tag)[0].id
            except ImageError:
                present = ""
            if present and present != image_id and present not in ours:
                return False
            images.tag(image_id, tag)
            return True

    async def _push(self, image_id: str, *, plain: bool) -> str:
        """Push under the name that the Build gives; returns what failed."""
        tag = self.spec["tag"]
        await asyncio.to_thread(self.access.check_registry, tag)
        if plain:
            return await self.docker("push", tag)
        # The engine pushes by name alone. Nothing that a Build of another namespace made counts as a local image, so
        # that the name may stand for this one meanwhile.
        before = await asyncio.to_thread(self._retag, image_id, tag)
        try:
            return await self.docker("push", tag)
        finally:
            await asyncio.to_thread(self._retag, before, tag)

    def _retag(self, image_id: str, tag: str) -> str:
        """Let a name stand for an image, for none when the id is empty; returns the id it stood for."""
        with engine_at(self.settings.docker_socket) as engine:
            images = EngineImages(engine, self.settings.platform)
            try:
                before = images.describe(tag)[0].id
            except ImageError:
                before = ""
            if image_id:
                images.tag(image_id, tag)
            elif before:
                engine.images.remove(tag, noprune=True)
            return before

    def _described(self, image_id: str) -> BuiltResult:
        with engine_at(self.settings.docker_socket) as engine:
            local, size = EngineImages(engine, self.settings.platform).describe(image_id)
            return BuiltResult(local_digest(parse_repository_tag(self.spec["tag"])[0], local), size)
