"""Volumes on Docker Engine, filled from outside through a container that is never started.

The content of a volume is read from it when this process does not know it, so a restarted driver loses nothing.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from autoscaler.runtime.docker import labels, payloads
from autoscaler.runtime.docker import volume_layout as layout
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.docker.listing import label_filter
from autoscaler.runtime.docker.own_image import OwnImage
from autoscaler.runtime.model import EngineVolume, File
from knoll.values.errors import KnollError, RuntimeUnavailableError

log = structlog.get_logger()

SWAP_SECONDS = 60.0


class Volumes:
    """The volumes of one platform."""

    def __init__(self, engine: Engine, image: OwnImage, platform: str) -> None:
        self._engine, self._image, self._platform = engine, image, platform
        self._content: dict[str, str] = {}
        """Name of a volume to the folder that it shows, or to the folders that were created in it."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def forget(self) -> None:
        """Read volumes again before relying on their content: the engine was unavailable."""
        self._content.clear()

    async def put_files(self, volume: EngineVolume, files: Mapping[str, File]) -> None:
        """See `Runtime.put_files`."""
        folder = layout.folder(files)
        if self._content.get(volume.name) == folder:
            return
        async with self._locks[volume.name], _refusals(f"volume {volume.name} cannot be written"):
            await self._create(volume)
            async with self._helper(volume.name) as helper:
                before = await self._read(helper)
                if not before.data:
                    await self._put(helper, layout.ROOT, layout.first(files, time.time()))
            if before.data and before.data != folder:
                await self._change(volume.name, before, files)
            self._content[volume.name] = folder

    async def ensure(self, volume: EngineVolume, folders: Sequence[str]) -> None:
        """See `Runtime.ensure_volume`."""
        content = json.dumps(sorted(folders))
        if self._content.get(volume.name) == content:
            return
        async with self._locks[volume.name], _refusals(f"volume {volume.name} cannot be created"):
            is_new = await self._create(volume)
            async with self._helper(volume.name) as helper:
                # Existing folders keep their modes, which belong to their users.
                missing = [path for path in folders if await self._stat(helper, f"{layout.ROOT}/{path}") is None]
                if is_new or missing:
                    await self._put(helper, "/", layout.emptied(missing, root=is_new))
            self._content[volume.name] = content

    async def all(self) -> list[EngineVolume]:
        """See `Runtime.volumes`."""
        volumes = await self._listed(f"{labels.PLATFORM}={self._platform}")
        return sorted((each for each in volumes if each.kind != "program"), key=lambda volume: volume.name)

    async def programs(self) -> list[EngineVolume]:
        """Return the volumes that hold programs of ours."""
        return await self._listed(f"{labels.PLATFORM}={self._platform}", f"{labels.VOLUME_KIND}=program")

    async def of(self, instance: str) -> list[EngineVolume]:
        """Return the volumes that an instance owns."""
        return await self._listed(f"{labels.PLATFORM}={self._platform}", f"{labels.OWNER}={instance}")

    async def scratch_bytes(self) -> dict[str, int]:
        """See `Runtime.scratch_bytes`."""
        usage = await self._engine.get("/system/df", {"type": "volume"})
        sizes = {}
        for volume in usage.get("Volumes") or ():
            own = volume.get("Labels") or {}
            if own.get(labels.PLATFORM) == self._platform and own.get(labels.VOLUME_KIND) == "scratch":
                sizes[str(own[labels.VOLUME])] = max(0, int((volume.get("UsageData") or {}).get("Size", 0)))
        return sizes

    async def remove(self, name: str) -> bool:
        """See `Runtime.remove_volume`."""
        async with self._locks[name]:
            self._content.pop(name, None)
            try:
                await self._engine.delete(f"/volumes/{labels.volume_name(self._platform, name)}")
            except EngineError as error:
                if error.status == 409:
                    return False
                if error.status != 404:
                    raise RuntimeUnavailableError(f"volume {name} cannot be removed: {error}") from error
        self._locks.pop(name, None)
        return True

    async def sweep(self) -> None:
        """Remove helpers that an earlier process left behind."""
        query: dict[str, str | int] = {
            "all": 1,
            "filters": label_filter(f"{labels.PLATFORM}={self._platform}", f"{labels.ROLE}=helper"),
        }
        for helper in await self._engine.get("/containers/json", query):
            await self._engine.remove(helper["Id"])

    async def _create(self, volume: EngineVolume) -> bool:
        """Create a volume when it is missing; returns whether it was."""
        name = labels.volume_name(self._platform, volume.name)
        try:
            await self._engine.get(f"/volumes/{name}")
            return False
        except EngineError as error:
            if error.status != 404:
                raise
        own = {
            labels.PLATFORM: self._platform, labels.ROLE: "volume", labels.VOLUME: volume.name,
            labels.VOLUME_KIND: volume.kind, labels.OWNER: volume.owner, labels.ABOUT: volume.about,
        }  # fmt: skip
        await self._engine.post("/volumes/create", {"Name": name, "Labels": own})
        return True

    async def _change(self, name: str, before: layout.VolumeContent, files: Mapping[str, File]) -> None:
        async with self._helper(name, layout.swap(before, files)) as helper:
            await self._put(helper, layout.ROOT, layout.following(before, files, time.time()))
            await self._engine.post(f"/containers/{helper}/start")
            result = await self._engine.post(f"/containers/{helper}/wait", seconds=SWAP_SECONDS)
            if result["StatusCode"]:
                raise RuntimeUnavailableError(f"volume {name} cannot be changed: error {result['StatusCode']}")

    @asynccontextmanager
    async def _helper(self, name: str, swap: Sequence[str] = ()) -> AsyncIterator[str]:
        """Create a container, not started, with a volume at `layout.ROOT`; it is removed afterwards."""
        body = payloads.helper(
            self._platform, await self._image.id(), labels.volume_name(self._platform, name), layout.ROOT, swap
        )
        helper = await self._engine.create(body)
        try:
            yield helper
        finally:
            await asyncio.shield(asyncio.ensure_future(self._discard(helper)))

    async def _discard(self, helper: str) -> None:
        try:
            await self._engine.remove(helper)
        except KnollError as error:
            log.warning("helper left behind, removing it later", container=helper, error=str(error))

    async def _read(self, helper: str) -> layout.VolumeContent:
        if await self._stat(helper, f"{layout.ROOT}/{layout.DATA}") is None:
            return layout.VolumeContent("", ())
        query = {"path": layout.ROOT}
        async with self._engine.stream("GET", f"/containers/{helper}/archive", query=query) as response:
            return layout.read_content(b"".join([data async for data in self._engine.chunks(response)]))

    async def _stat(self, helper: str, path: str) -> str | None:
        try:
            async with self._engine.stream("HEAD", f"/containers/{helper}/archive", query={"path": path}) as response:
                return response.headers.get("X-Docker-Container-Path-Stat", "")
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    async def _put(self, helper: str, path: str, archive: bytes) -> None:
        await self._engine.call("PUT", f"/containers/{helper}/archive", body=archive, query={"path": path})

    async def _listed(self, *selectors: str) -> list[EngineVolume]:
        response = await self._engine.get("/volumes", {"filters": label_filter(*selectors)})
        return [_volume(volume["Labels"]) for volume in response["Volumes"] or ()]


def _volume(own: Mapping[str, Any]) -> EngineVolume:
    return EngineVolume(own[labels.VOLUME], own[labels.VOLUME_KIND], own[labels.OWNER], own[labels.ABOUT])


@asynccontextmanager
async def _refusals(message: str) -> AsyncIterator[None]:
    try:
        yield
    except EngineError as error:
        raise RuntimeUnavailableError(f"{message}: {error}") from error
