"""Images on the engine: looked up by pinned reference, pulled when missing, inspected once."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.runtime.docker import payloads
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.model import PullProgress
from knoll.auth.registry_auth import matching
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.values import platform_registry
from knoll.values.errors import ImageError

_DIGEST = re.compile(r"^(?P<repository>.+)@(?P<digest>sha256:[0-9a-f]{64})$")

OnPullProgress = Callable[[PullProgress], None]


@dataclass(frozen=True, slots=True)
class Image:
    """One image, as containers are created from it."""

    id: str
    """The engine's id."""
    has_tmp: bool
    """Its file system has a /tmp."""
    user: str
    """The image's setting: `65532`, `app:app`; empty is root."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


class Images:
    """A cache of the engine's images; drops only those that turn out to be gone."""

    def __init__(self, engine: Engine, platform: str, registry: str = "") -> None:
        """Args: registry: the platform's, on several machines: `HOST:PORT` at which the engine reaches it."""
        self._engine, self._platform, self._registry = engine, platform, registry
        self._pinned: dict[str, str] = {}
        self._images: dict[str, Image] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def get(self, reference: str) -> Image:
        """Return the image of a reference.

        Raises:
            ImageError: it is not on the engine.
        """
        image_id = self._pinned.get(reference) or await self._find(reference)
        if image_id is None:
            raise ImageError(f"image {reference} is not on the engine")
        if image_id not in self._images:
            config = await self._config_of(image_id)
            self._images[image_id] = Image(
                image_id,
                await self._has_tmp(image_id),
                str(config.get("User") or ""),
                tuple(config.get("Entrypoint") or ()),
                tuple(config.get("Cmd") or ()),
            )
        return self._images[image_id]

    def forget(self, reference: str) -> None:
        """Drop an image: the engine has reported that it is gone."""
        self._pinned.pop(reference, None)

    async def ensure(
        self,
        reference: str,
        progress: OnPullProgress | None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None,
    ) -> str:
        """Pull an image when it is missing; see `Runtime.ensure_image`."""
        # A pinned image that was present is assumed to be present still: this is in the path of a cold start. When it
        # turns out to be gone, the start fails and calls `forget`.
        if reference not in self._pinned and await self._find(reference) is None:
            await self._pull_once(reference, progress, credentials)
        return (await self.get(reference)).id

    async def _find(self, reference: str) -> str | None:
        """Return the id of an image; the digest of a pinned one may be the repository's or the engine's own."""
        image_id = await self._id_of(reference)
        if pinned := _DIGEST.match(reference):
            image_id = image_id or await self._id_of(pinned["digest"])
            if image_id:
                self._pinned[reference] = image_id
        return image_id

    async def _id_of(self, name: str) -> str | None:
        try:
            return str((await self._engine.get(f"/images/{name}/json"))["Id"])
        except EngineError as error:
            if error.status == 404:
                return None
            raise ImageError(f"image {name} cannot be looked up: {error}") from error

    async def _config_of(self, image_id: str) -> Mapping[str, Any]:
        try:
            inspected = await self._engine.get(f"/images/{image_id}/json")
        except EngineError as error:
            raise ImageError(f"image {image_id} cannot be looked up: {error}") from error
        config: Mapping[str, Any] = inspected.get("Config") or {}
        return config

    async def has_quotas(self, image_id: str) -> bool:
        """Return whether this engine limits a container's file system (overlay2 on XFS with pquota, btrfs, zfs).

        Args: image_id: of any image on the engine.
        """
        body = payloads.never_started(self._platform, image_id)
        body["HostConfig"] |= payloads.quota(0)
        try:
            created = await self._engine.create(body)
        except EngineError:
            return False
        await self._engine.remove(created)
        return True

    async def _has_tmp(self, image_id: str) -> bool:
        """Return whether an image has /tmp. Only a container's file system can be read; this one is never started."""
        body = payloads.never_started(self._platform, image_id)
        try:
            created = await self._engine.create(body)
        except EngineError as error:
            raise ImageError(f"no container can be created from image {image_id}: {error}") from error
        try:
            await self._engine.call("HEAD", f"/containers/{created}/archive", query={"path": "/tmp"})  # noqa: S108
            return True
        except EngineError:
            return False
        finally:
            await asyncio.shield(self._engine.remove(created))

    async def _pull_once(
        self,
        reference: str,
        progress: OnPullProgress | None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None,
    ) -> None:
        task = self._pulls.get(reference)
        if task is None:
            task = asyncio.create_task(self._pull_with(reference, progress, credentials))
            self._pulls[reference] = task
            task.add_done_callback(lambda _: self._pulls.pop(reference, None))
        await asyncio.shield(task)

    async def _pull_with(
        self,
        reference: str,
        progress: OnPullProgress | None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None,
    ) -> None:
        """Pull, with each matching credential until one is accepted."""
        available = await credentials() if credentials else RegistryCredentials()
        if self._registry and (pinned := _DIGEST.match(reference)):
            try:
                return await self._pull_from_platform(pinned["digest"], progress)
            except ImageError as error:
                available = RegistryCredentials(available.credentials, (*available.problems, str(error)))
        headers = [credential.header() for credential in matching(available.credentials, reference)]
        for header in headers[:-1]:
            with contextlib.suppress(ImageError):
                return await self._pull(reference, progress, header)
        try:
            return await self._pull(reference, progress, headers[-1] if headers else "")
        except ImageError as error:
            raise ImageError(f"{error}{available.hint}") from error

    async def _pull_from_platform(self, image_id: str, progress: OnPullProgress | None) -> None:
        """Pull an image from the platform's registry, which has the images that Revisions are pinned to by their id.

        Raises: ImageError: it has no such image (a digest may be another registry's), or another one under that id.
        """
        name = platform_registry.image_name(self._registry, self._platform, image_id)
        await self._pull(name, progress, "")
        if await self._id_of(name) != image_id:
            raise ImageError(f"the platform's registry has another image as {name}")

    async def _pull(self, reference: str, progress: OnPullProgress | None, credential: str) -> None:
        layers: dict[str, tuple[int, int]] = {}
        headers = {"X-Registry-Auth": credential} if credential else {}
        try:
            async with self._engine.stream(
                "POST", "/images/create", query=_pull_query(reference), headers=headers
            ) as response:
                async for line in self._engine.lines(response):
                    event: dict[str, Any] = json.loads(line)
                    if error := event.get("error"):
                        raise ImageError(f"image {reference} cannot be pulled: {error}")
                    if progress:
                        progress(_progress(event, layers))
        except EngineError as error:
            raise ImageError(f"image {reference} cannot be pulled: {error}") from error


def _pull_query(reference: str) -> dict[str, str]:
    name = reference.rsplit("/", 1)[-1]
    query = {"fromImage": reference}
    if ":" not in name and "@" not in name:
        query["tag"] = "latest"  # without a tag the engine would pull all of them
    return query


def _progress(event: dict[str, Any], layers: dict[str, tuple[int, int]]) -> PullProgress:
    detail = event.get("progressDetail") or {}
    if event.get("status") == "Downloading" and detail.get("total"):
        layers[str(event.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
    elif event.get("status") in ("Download complete", "Pull complete") and (key := str(event.get("id"))) in layers:
        layers[key] = (layers[key][1], layers[key][1])
    done, total = (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
    return PullProgress(str(event.get("status", "")), done, total)
