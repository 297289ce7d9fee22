"""Volumes on Docker Engine: filled from outside, through a container that is never started.

What is in a volume is read from it when this process does not know, so that a driver that begins anew knows all.
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
from autoscaler.runtime.docker.own_image import OwnImage
from autoscaler.runtime.protocol import File, Volume
from knoll.values.errors import KnollError, RuntimeUnavailableError

log = structlog.get_logger()

SWAP_SECONDS = 60.0


class Volumes:
    """The volumes of one platform."""

    def __init__(self, engine: Engine, image: OwnImage, platform: str) -> None:
        self._engine, self._image, self._platform = engine, image, platform
        self._holds: dict[str, str] = {}
        """Name to the folder that a volume shows, or to the folders that it was given."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def forget(self) -> None:
        """The engine was away: look before anything is believed of it."""
        self._holds.clear()

    async def put_files(self, volume: Volume, files: Mapping[str, File]) -> None:
        """See `Runtime.put_files`."""
        wanted = layout.folder(files)
        if self._holds.get(volume.name) == wanted:
            return
        async with self._locks[volume.name], _refusals(f"volume {volume.name} cannot be filled"):
            await self._make(volume)
            async with self._helper(volume.name) as helper:
                before = await self._seen(helper)
                if not before.data:
                    await self._put(helper, layout.ROOT, layout.first(files, time.time()))
            if before.data and before.data != wanted:
                await self._change(volume.name, before, files)
            self._holds[volume.name] = wanted

    async def ensure(self, volume: Volume, folders: Sequence[str]) -> None:
        """See `Runtime.ensure_volume`."""
        wanted = json.dumps(sorted(folders))
        if self._holds.get(volume.name) == wanted:
            return
        async with self._locks[volume.name], _refusals(f"volume {volume.name} cannot be made"):
            fresh = await self._make(volume)
            async with self._helper(volume.name) as helper:
                # What is there already keeps its modes: they are its users' affair.
                missing = [path for path in folders if await self._stat(helper, f"{layout.ROOT}/{path}") is None]
                if fresh or missing:
                    await self._put(helper, "/", layout.emptied(missing, root=fresh))
            self._holds[volume.name] = wanted

    async def all(self) -> list[Volume]:
        """See `Runtime.volumes`."""
        found = await self._listed(f"{labels.PLATFORM}={self._platform}")
        return sorted(found, key=lambda one: one.name)

    async def of(self, instance: str) -> list[Volume]:
        """Those that an instance owns."""
        wanted = (f"{labels.PLATFORM}={self._platform}", f"{labels.OWNER}={instance}")
        return await self._listed(*wanted)

    async def scratch_bytes(self) -> dict[str, int]:
        """See `Runtime.scratch_bytes`."""
        answer = await self._engine.get("/system/df", {"type": "volume"})
        sizes = {}
        for one in answer.get("Volumes") or ():
            told = one.get("Labels") or {}
            if told.get(labels.PLATFORM) == self._platform and told.get(labels.VOLUME_KIND) == "scratch":
                sizes[str(told[labels.VOLUME])] = max(0, int((one.get("UsageData") or {}).get("Size", 0)))
        return sizes

    async def remove(self, name: str) -> bool:
        """See `Runtime.remove_volume`."""
        async with self._locks[name]:
            self._holds.pop(name, None)
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
        """Remove helpers that an earlier process left."""
        query: dict[str, str | int] = {
            "all": 1,
            "filters": _labelled(f"{labels.PLATFORM}={self._platform}", f"{labels.ROLE}=helper"),
        }
        for one in await self._engine.get("/containers/json", query):
            await self._engine.remove(one["Id"])

    async def _make(self, volume: Volume) -> bool:
        """Returns whether it was not there."""
        name = labels.volume_name(self._platform, volume.name)
        try:
            await self._engine.get(f"/volumes/{name}")
            return False
        except EngineError as error:
            if error.status != 404:
                raise
        told = {
            labels.PLATFORM: self._platform, labels.ROLE: "volume", labels.VOLUME: volume.name,
            labels.VOLUME_KIND: volume.kind, labels.OWNER: volume.owner, labels.ABOUT: volume.about,
        }  # fmt: skip
        await self._engine.post("/volumes/create", {"Name": name, "Labels": told})
        return True

    async def _change(self, name: str, before: layout.Seen, files: Mapping[str, File]) -> None:
        async with self._helper(name, layout.swap(before, files)) as helper:
            await self._put(helper, layout.ROOT, layout.following(before, files, time.time()))
            await self._engine.post(f"/containers/{helper}/start")
            told = await self._engine.post(f"/containers/{helper}/wait", seconds=SWAP_SECONDS)
            if told["StatusCode"]:
                raise RuntimeUnavailableError(f"volume {name} cannot be changed: error {told['StatusCode']}")

    @asynccontextmanager
    async def _helper(self, name: str, swap: Sequence[str] = ()) -> AsyncIterator[str]:
        """A container, not started, that has a volume at `layout.ROOT`; gone afterwards."""
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
            log.warning("a helper is left behind; it is removed later", container=helper, error=str(error))

    async def _seen(self, helper: str) -> layout.Seen:
        if await self._stat(helper, f"{layout.ROOT}/{layout.DATA}") is None:
            return layout.Seen("", ())
        query = {"path": layout.ROOT}
        async with self._engine.stream("GET", f"/containers/{helper}/archive", query=query) as answer:
            return layout.seen(b"".join([data async for data in self._engine.chunks(answer)]))

    async def _stat(self, helper: str, path: str) -> str | None:
        try:
            async with self._engine.stream("HEAD", f"/containers/{helper}/archive", query={"path": path}) as answer:
                return answer.headers.get("X-Docker-Container-Path-Stat", "")
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    async def _put(self, helper: str, path: str, archive: bytes) -> None:
        await self._engine.call("PUT", f"/containers/{helper}/archive", body=archive, query={"path": path})

    async def _listed(self, *wanted: str) -> list[Volume]:
        answer = await self._engine.get("/volumes", {"filters": _labelled(*wanted)})
        return [_volume(one["Labels"]) for one in answer["Volumes"] or ()]


def _volume(told: Mapping[str, Any]) -> Volume:
    return Volume(told[labels.VOLUME], told[labels.VOLUME_KIND], told[labels.OWNER], told[labels.ABOUT])


@asynccontextmanager
async def _refusals(what: str) -> AsyncIterator[None]:
    try:
        yield
    except EngineError as error:
        raise RuntimeUnavailableError(f"{what}: {error}") from error


def _labelled(*wanted: str) -> str:
    return json.dumps({"label": list(wanted)})
