"""Builds or pulls the image of a Build: the engine then has it as an image of the Build's namespace."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from docker.utils import parse_repository_tag

from builder.build import buildkit, buildx, uploads
from builder.build.build_inputs import Docker, PreparedBuild, prepare_build
from builder.build.progress_reporter import ProgressReporter
from builder.images.access import ImageAccess, is_internal
from builder.images.built_images import BuiltImage, BuiltImages, canonical, engine_name
from builder.images.engine_images import ARCHIVE_SECONDS, EngineImages, LocalImage, engine_at, local_digest
from builder.images.layers import Layers
from builder.images.platform_registry import PlatformRegistry
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.store.protocol import Store
from knoll.values.errors import ImageError, RuntimeUnavailableError
from knoll.values.json import Json


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """Why a Build has no image, or why its image was not pushed."""

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
    """Makes the image of one Build. Its fields are settings, connections and the Build itself."""

    settings: BuilderSettings
    redis: RedisClient
    store: Store
    access: ImageAccess
    docker: Docker
    reporter: ProgressReporter
    namespace: str
    spec: Json
    registry: PlatformRegistry | None = None
    """The platform's, on several machines."""

    async def make(self) -> BuiltResult | BuildFailure:
        """Build or pull the image, record it for the namespace, and push it if the Build asks for it.

        Raises: SourceError, ImageError, BuildKitUnavailableError, RuntimeUnavailableError, StoreUnavailableError.
        """
        image = self.spec["source"].get("image")
        if image:
            image_id: str | BuildFailure = await self._mirrored(image)
        else:
            build = prepare_build(
                self.docker,
                self.store,
                partial(uploads.archive, self.settings, self.redis),
                self.access,
                self.namespace,
                self.spec,
                keep_frontend=bool(self.settings.build_frontends),
            )
            async with build as prepared:
                image_id = await self._built(prepared)
        if isinstance(image_id, BuildFailure):
            return image_id
        if self.registry:
            # Before the record of the image: with it, the other machines look for the image there.
            await self.reporter.line("pushing the image to the platform's registry")
            try:
                await self.registry.push(image_id)
            except RuntimeUnavailableError as error:
                return BuildFailure("PushFailed", f"the image was built, but other machines cannot get it: {error}")
        plain = await self._keep(image_id)
        if self.spec.get("push") and (reason := await self._push(image_id, plain=plain)):
            tag = self.spec["tag"]
            return BuildFailure("PushFailed", f'the image was built, but "{tag}" could not be pushed: {reason}')
        return await asyncio.to_thread(self._described, image_id)

    async def _built(self, prepared: PreparedBuild) -> str | BuildFailure:
        """Let BuildKit make the image and load it into the engine; returns its id."""
        await buildkit.until_it_answers(self.settings)
        layers = Layers(self.settings.layers_dir)
        await asyncio.to_thread(layers.prepare)
        sources, bases = await self._base_images(prepared.images, layers)
        metadata = prepared.folder / "metadata.json"
        arguments = buildx.build_arguments(replace(prepared.command, images=sources), layers.folder, metadata)
        if reason := await self.docker(*arguments, archive=prepared.archive):
            return BuildFailure("BuildFailed", reason)
        digests = json.loads(metadata.read_text())
        before = self.access.built.newest(self.spec["tag"])
        relatives = [*bases, *([before.id] if before else [])]
        name = engine_name(self.settings.platform, self.namespace, digests["containerimage.config.digest"])
        return await asyncio.to_thread(self._load, layers, digests["containerimage.digest"], name, relatives)

    def _load(self, layers: Layers, digest: str, name: str, relatives: list[str]) -> str:
        with engine_at(self.settings.docker_socket, ARCHIVE_SECONDS) as engine:
            return layers.load(engine, digest, name, relatives)

    async def _base_images(self, names: tuple[str, ...], layers: Layers) -> tuple[dict[str, str], list[str]]:
        """Save the images that BuildKit reads from the engine; returns their sources by name, and their ids."""
        sources, ids = {}, []
        for name in names:
            try:
                image_id = await self._engine_image(name)
            except ValueError:
                continue  # not a reference: BuildKit reports what is wrong with it
            if image_id:
                digest = await asyncio.to_thread(self._saved, layers, image_id)
                sources[name] = f"oci-layout://{layers.folder}@{digest}"
                ids.append(image_id)
        return sources, ids

    async def _engine_image(self, name: str) -> str:
        """Return the id of an image that the engine has or can pull; empty when BuildKit pulls it itself."""
        local = await self._image_of(name)
        if local:
            return local.id
        if not await asyncio.to_thread(is_internal, name):
            return ""
        reason = await self._pull(name)
        if reason:
            raise ImageError(f'image "{name}" cannot be pulled: {reason}')
        return (await asyncio.to_thread(self._describe, name)).id

    async def _pull(self, name: str) -> str:
        """Pull an image to the engine, where pruning removes it later; returns the reason of a failure."""
        await asyncio.to_thread(self.access.check_registry, name)
        platform = ["--platform", self.spec["platform"]] if self.spec.get("platform") else []
        await self.redis.write(("SADD", keys.pulled_images(self.settings.node), name))
        return await self.docker("pull", *platform, name)

    def _saved(self, layers: Layers, image_id: str) -> str:
        with engine_at(self.settings.docker_socket, ARCHIVE_SECONDS) as engine:
            return layers.save(engine, image_id)

    async def _mirrored(self, name: str) -> str | BuildFailure:
        """Pull an image that exists already, unless the engine has it; returns its id."""
        repository = parse_repository_tag(name)[0]
        local = await self._image_of(name)
        # An image that a registry has may have changed there.
        if local is None or local.digest_in(repository):
            try:
                reason = await self._pull(name)
            except ImageError as error:
                reason = str(error)
            if reason:
                return BuildFailure("BuildFailed", reason)
            local = await asyncio.to_thread(self._describe, name)
        with engine_at(self.settings.docker_socket) as engine:
            kept = engine_name(self.settings.platform, self.namespace, local.id)
            await asyncio.to_thread(EngineImages(engine, self.settings.platform).tag, local.id, kept)
        return local.id

    async def _image_of(self, name: str) -> LocalImage | None:
        """Return an image of the engine; one of another engine is pulled first."""
        if self.registry is None:
            return await asyncio.to_thread(self._find, name)
        elsewhere = await self.registry.others.images([name])
        local = await asyncio.to_thread(self._find, name, elsewhere.by_reference)
        if local and local.node:
            await self.registry.fetch(local.id)
        return local

    def _find(self, name: str, elsewhere: Mapping[str, Sequence[LocalImage]] | None = None) -> LocalImage | None:
        with engine_at(self.settings.docker_socket) as engine:
            return EngineImages(engine, self.settings.platform, self.access, elsewhere=elsewhere).find(name)

    def _describe(self, name: str) -> LocalImage:
        with engine_at(self.settings.docker_socket) as engine:
            return EngineImages(engine, self.settings.platform).describe(name)[0]

    async def _keep(self, image_id: str) -> bool:
        """Record the image for the namespace; returns whether the engine has it under its own name too."""
        tag = self.spec["tag"]
        plain = not self.access.tenants and await asyncio.to_thread(self._take_plain_name, image_id)
        if not plain and not self.access.tenants:
            await self.reporter.line(
                f'note: "{tag}" already names another image on the engine, which keeps the name; Services in '
                f"namespace {self.namespace} get this image by that name"
            )
        made = BuiltImage(canonical(tag), image_id, time.time(), plain, self.settings.node)
        await BuiltImages(self.redis).record(self.namespace, made)
        return plain

    def _take_plain_name(self, image_id: str) -> bool:
        """Tag the image with its name, unless that names an image that no Build of this namespace made."""
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
        """Push the image under the tag of the Build; returns the reason of a failure."""
        tag = self.spec["tag"]
        await asyncio.to_thread(self.access.check_registry, tag)
        if plain:
            return await self.docker("push", tag)
        # The engine pushes by name only. No image that a Build of another namespace made is used as a local image, so
        # the name can refer to this image for as long as the push takes.
        before = await asyncio.to_thread(self._retag, image_id, tag)
        try:
            return await self.docker("push", tag)
        finally:
            await asyncio.to_thread(self._retag, before, tag)

    def _retag(self, image_id: str, tag: str) -> str:
        """Make a name refer to an image, or to none when the id is empty; returns the id that it referred to."""
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
