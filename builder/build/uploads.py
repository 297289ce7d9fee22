"""Sources that users uploaded: in the folder of this machine's API, or fetched from that of another machine."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from knoll.auth import process_tokens
from knoll.cluster.other_machines import OtherMachines, RemoteService
from knoll.process.settings import BuilderSettings
from knoll.redis.client import RedisClient
from knoll.values.errors import KnollError, SourceError
from knoll.values.json import Json

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger()


async def archive(settings: BuilderSettings, redis: RedisClient, namespace: str, source_spec: Json) -> Path:
    """Return the archive of a Build's source.

    An archive from another machine is stored in this machine's folder, and cleaned up like the others.

    Raises: SourceError: no machine has it. StoreUnavailableError.
    """
    upload = source_spec.get("upload")
    if not upload:
        raise SourceError("spec.source.upload is missing: upload a tar of the source first")
    identity = Path(str(upload["id"])).name
    path = settings.uploads_dir / namespace / identity
    if await asyncio.to_thread(path.is_file):
        return path
    others = OtherMachines(redis, settings.node, settings.node_dir, "api")
    try:
        for machine in await others.all():
            if await _fetched(machine, settings, f"{namespace}/{identity}", path):
                return path
    finally:
        await others.close()
    raise SourceError(f"the upload {upload['id']} does not exist: upload the source again")


async def _fetched(machine: RemoteService, settings: BuilderSettings, name: str, path: Path) -> bool:
    """Fetch an archive from a machine; returns whether it has it."""
    import httpx  # only where there are several machines

    try:
        token = process_tokens.mint_shared(settings.keyring, f"upload {name}", time.time())
        request = machine.client.build_request(
            "GET",
            f"{machine.url}/cluster/uploads/{name}",
            headers={"Authorization": f"Bearer {token}"},
            extensions={"sni_hostname": machine.name},
        )
        response = await machine.client.send(request, stream=True)
        try:
            if response.status_code == 404:
                return False
            response.raise_for_status()
            await _keep(response, path)
        finally:
            await response.aclose()
    except (httpx.HTTPError, OSError, KnollError) as error:
        log.warning("upload not fetched", node=machine.name, upload=name, error=str(error) or type(error).__name__)
        return False
    log.info("upload fetched", node=machine.name, upload=name)
    return True


async def _keep(response: "httpx.Response", path: Path) -> None:
    """Write a response to a file, atomically. Raises: SourceError: its hash is not the one in the file's name."""
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    handle, part = await asyncio.to_thread(tempfile.mkstemp, suffix=".part", dir=path.parent)
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as file:
            async for chunk in response.aiter_raw():
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
        if f"sha256-{digest.hexdigest()}" != path.name:
            raise SourceError(f"the upload {path.name} has different content on the machine that stores it")
        await asyncio.to_thread(os.replace, part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
