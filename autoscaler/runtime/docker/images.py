"""Images on the engine: found by what a revision pinned, pulled when missing, looked into once."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from autoscaler.runtime.docker import payloads
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.protocol import PullProgress
from knoll.auth.registry_auth import matching
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.values.errors import ImageError

_DIGEST = re.compile(r"^(?P<repository>.+)@(?P<digest>sha256:[0-9a-f]{64})$")

Progress = Callable[[PullProgress], None]


@dataclass(frozen=True, slots=True)
class Image:
    """One image as containers are made of it."""

    id: str
    """The engine's."""
    has_tmp: bool
    """Its file system has a /tmp."""
    user: str
    """As the image says it: `65532`, `app:app`; empty is root."""


class Images:
    """What is known of the engine's images; forgets nothing but what turns out to be gone."""

    def __init__(self, engine: Engine, platform: str) -> None:
        self._engine, self._platform = engine, platform
        self._pinned: dict[str, str] = {}
        self._known: dict[str, Image] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def get(self, reference: str) -> Image:
        """The image of a reference.

        Raises:
            ImageError: it is not on the engine.
        """
        found = self._pinned.get(reference) or await self._find(reference)
        if found is None:
            raise ImageError(f"image {reference} is not on the engine")
        if found not in self._known:
            self._known[found] = Image(found, await self._look_for_tmp(found), await self._user_of(found))
        return self._known[found]

    def forget(self, reference: str) -> None:
        """The engine said that it has no such image any more."""
        self._pinned.pop(reference, None)

    async def ensure(
        self,
        reference: str,
        progress: Progress | None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None,
    ) -> str:
        """Pull an image unless it is there; see `Runtime.ensure_image`."""
        # A pinned image that was here is taken to be here still: a cold start asks. When it turns out to be gone, the
        # start says so and `forget` is called.
        if reference not in self._pinned and await self._find(reference) is None:
            await self._pull_once(reference, progress, credentials)
        return (await self.get(reference)).id

    async def _find(self, reference: str) -> str | None:
        """Id of an image; the digest of a pinned one may be the repository's or the engine's own."""
        found = await self._id_of(reference)
        if pinned := _DIGEST.match(reference):
            found = found or await self._id_of(pinned["digest"])
            if found:
                self._pinned[reference] = found
        return found

    async def _id_of(self, name: str) -> str | None:
        try:
            return str((await self._engine.get(f"/images/{name}/json"))["Id"])
        except EngineError as error:
            if error.status == 404:
                return None
            raise ImageError(f"image {name} cannot be looked up: {error}") from error

    async def _user_of(self, image_id: str) -> str:
        try:
            told = await self._engine.get(f"/images/{image_id}/json")
        except EngineError as error:
            raise ImageError(f"image {image_id} cannot be looked up: {error}") from error
        return str((told.get("Config") or {}).get("User") or "")

    async def has_quotas(self, image_id: str) -> bool:
        """Whether this engine bounds a container's file system (overlay2 on XFS with pquota, btrfs, zfs).

        Args: image_id: of any image that is on the engine.
        """
        body = payloads.look(self._platform, image_id)
        body["HostConfig"] |= payloads.quota(0)
        try:
            made = await self._engine.create(body)
        except EngineError:
            return False
        await self._engine.remove(made)
        return True

    async def _look_for_tmp(self, image_id: str) -> bool:
        """Only a container's file system can be asked; this one is never started."""
        body = payloads.look(self._platform, image_id)
        try:
            made = await self._engine.create(body)
        except EngineError as error:
            raise ImageError(f"no container can be made of image {image_id}: {error}") from error
        try:
            await self._engine.call("HEAD", f"/containers/{made}/archive", query={"path": "/tmp"})  # noqa: S108
            return True
        except EngineError:
            return False
        finally:
            await asyncio.shield(self._engine.remove(made))

    async def _pull_once(
        self,
        reference: str,
        progress: Progress | None,
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
        progress: Progress | None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None,
    ) -> None:
        """Pull, with each credential that fits until one is taken."""
        known = await credentials() if credentials else RegistryCredentials()
        headers = [one.header() for one in matching(known.credentials, reference)]
        for header in headers[:-1]:
            with contextlib.suppress(ImageError):
                return await self._pull(reference, progress, header)
        try:
            return await self._pull(reference, progress, headers[-1] if headers else "")
        except ImageError as error:
            raise ImageError(f"{error}{known.hint}") from error

    async def _pull(self, reference: str, progress: Progress | None, credential: str) -> None:
        layers: dict[str, tuple[int, int]] = {}
        headers = {"X-Registry-Auth": credential} if credential else {}
        try:
            async with self._engine.stream(
                "POST", "/images/create", query=_pull_query(reference), headers=headers
            ) as answer:
                async for line in self._engine.lines(answer):
                    told: dict[str, Any] = json.loads(line)
                    if error := told.get("error"):
                        raise ImageError(f"image {reference} cannot be pulled: {error}")
                    if progress:
                        progress(_progress(told, layers))
        except EngineError as error:
            raise ImageError(f"image {reference} cannot be pulled: {error}") from error


def _pull_query(reference: str) -> dict[str, str]:
    name = reference.rsplit("/", 1)[-1]
    query = {"fromImage": reference}
    if ":" not in name and "@" not in name:
        query["tag"] = "latest"  # without one the engine would pull every tag there is
    return query


def _progress(told: dict[str, Any], layers: dict[str, tuple[int, int]]) -> PullProgress:
    detail = told.get("progressDetail") or {}
    if told.get("status") == "Downloading" and detail.get("total"):
        layers[str(told.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
    elif told.get("status") in ("Download complete", "Pull complete") and (key := str(told.get("id"))) in layers:
        layers[key] = (layers[key][1], layers[key][1])
    done, total = (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
    return PullProgress(str(told.get("status", "")), done, total)
