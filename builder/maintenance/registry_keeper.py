"""Keeps the platform's registry, on the machine that has it: what is in it, and what nothing needs any more."""

import asyncio
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import structlog

from builder.maintenance.leftovers import Leftovers
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.values.errors import RuntimeUnavailableError
from knoll.values.platform_registry import repository, tag_of

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger()

SECONDS = 30.0
"""Timeout of a request."""
_MANIFESTS = ", ".join((
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
))  # fmt: skip


class RegistryKeeper:
    """Speaks to the registry directly, not through an engine. Source: the OCI distribution specification."""

    def __init__(self, settings: BuilderSettings, redis: RedisClient, leftovers: Leftovers) -> None:
        """Args: settings: with `registry_url`."""
        self._settings, self._redis, self._leftovers = settings, redis, leftovers
        self._path = f"/v2/{repository(settings.platform)}"

    async def record(self) -> set[str]:
        """Record what the registry has, for all machines; returns the ids of the images.

        A registry that lost its data has nothing: the machines then push what their engines have.

        Raises: RuntimeUnavailableError, StoreUnavailableError.
        """
        async with self._client() as client:
            present = {f"sha256:{tag}" for tag in await self._tags(client)}
        recorded = {each.decode() for each in await self._redis.execute("SMEMBERS", keys.REGISTRY_IMAGES)}
        # An image that is pushed at this moment may be forgotten here: it is pushed again, which sends nothing.
        if gone := sorted(recorded - present):
            await self._redis.write(("SREM", keys.REGISTRY_IMAGES, *gone))
        if new := sorted(present - recorded):
            await self._redis.write(("SADD", keys.REGISTRY_IMAGES, *new))
        return present

    async def prune(self, needed: Collection[str]) -> int:
        """Remove images that are not needed, and let the registry remove their layers; returns how many images.

        Args: needed: ids.

        Raises: RuntimeUnavailableError, StoreUnavailableError.
        """
        due = self._leftovers.due((await self.record()).difference(needed), time.monotonic())
        if not due:
            return 0
        await self._redis.write(("SREM", keys.REGISTRY_IMAGES, *due))
        async with self._client() as client:
            for image_id in due:
                await self._remove(client, image_id)
        await asyncio.to_thread(self._collect)
        return len(due)

    async def _remove(self, client: "httpx.AsyncClient", image_id: str) -> None:
        manifest = f"{self._path}/manifests/{tag_of(image_id)}"
        described = await self._sent(client, "HEAD", manifest, {"Accept": _MANIFESTS})
        if described.status_code == 404:
            return
        digest = described.headers.get("docker-content-digest", "")
        await self._sent(client, "DELETE", f"{self._path}/manifests/{digest}")
        log.info("image removed from the platform's registry", image=image_id)

    def _collect(self) -> None:
        """Ask the registry's container to remove what no image needs: it compares what this file says."""
        if self._settings.registry_dir is not None:
            (self._settings.registry_dir / "collect").write_text(f"{time.time_ns()}\n")

    async def _tags(self, client: "httpx.AsyncClient") -> list[str]:
        tags: list[str] = []
        path: str | None = f"{self._path}/tags/list"
        while path:
            response = await self._sent(client, "GET", path)
            if response.status_code == 404:  # nothing was pushed yet
                return []
            tags += response.json().get("tags") or []
            path = response.links.get("next", {}).get("url")
        return tags

    def _client(self) -> "httpx.AsyncClient":
        import httpx  # only where there are several machines

        return httpx.AsyncClient(base_url=self._settings.registry_url, timeout=SECONDS)

    async def _sent(
        self, client: "httpx.AsyncClient", method: str, path: str, headers: dict[str, str] | None = None
    ) -> "httpx.Response":
        import httpx

        try:
            response = await client.request(method, path, headers=headers)
            if response.status_code not in (200, 202, 404):
                raise RuntimeUnavailableError(f"the platform's registry: {method} {path}: {response.status_code}")
        except httpx.HTTPError as error:
            raise RuntimeUnavailableError(f"the platform's registry does not respond: {error!r}") from error
        return response
