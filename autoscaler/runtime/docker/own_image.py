"""The sandbox's image on the engine: created when missing, verified before use, and used by its id.

Its name is informative only: a user who may tag images on the engine can give it to another image.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import structlog

from autoscaler.runtime.docker import pause_image
from autoscaler.runtime.docker.engine import Engine, EngineError
from knoll.values.errors import ImageError

log = structlog.get_logger()

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def architecture_of(reported: str) -> str:
    """Return an engine's architecture as images name it. Raises: ImageError: it is neither amd64 nor arm64."""
    if reported not in _ARCHITECTURES:
        raise ImageError(f"no sandbox image for the engine's architecture {reported}; there is one for amd64 and arm64")
    return _ARCHITECTURES[reported]


def is_ours(inspected: Mapping[str, Any], layer: bytes) -> bool:
    """Return whether an image contains our programs and nothing else, and starts the first of them.

    Args:
        inspected: the engine's description of the image.
        layer: the tar archive of its content.
    """
    config = inspected.get("Config") or {}
    return (
        (inspected.get("RootFS") or {}).get("Layers") == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
        and config.get("Entrypoint") == ["/pause"]
        and not config.get("Cmd")
        and config.get("User") == pause_image.USER
        and config.get("Labels") == {pause_image.LABEL: pause_image.VERSION}
        and not config.get("Volumes")
        and not config.get("OnBuild")
    )


class OwnImage:
    """The image of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._id = ""

    async def id(self) -> str:
        """Return the id of the image, which is on the engine.

        Raises:
            ImageError: the engine's architecture is neither amd64 nor arm64, or it does not store the image as sent.
            EngineError, RuntimeUnavailableError: the engine refuses or is unavailable.
        """
        if not self._id:
            self._id = await self._ensure()
        return self._id

    def forget(self) -> None:
        """Verify the image again: the engine was unavailable, or has reported that it is gone."""
        self._id = ""

    async def _ensure(self) -> str:
        architecture = architecture_of((await self._engine.get("/version"))["Arch"])
        layer = pause_image.layer(architecture)
        present = await self._inspect()
        if present and is_ours(present, layer):
            return str(present["Id"])
        if present:
            log.warning("image replaced", image=pause_image.REFERENCE, reason="unexpected content")
        repository, _, tag = pause_image.REFERENCE.partition(":")
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "platform": f"linux/{architecture}"}
        await self._engine.post("/images/create", layer, {**query, "changes": pause_image.CHANGES})
        created = await self._inspect()
        if not created or not is_ours(created, layer):
            raise ImageError(f"the engine's image {pause_image.REFERENCE} does not have the content that was uploaded")
        return str(created["Id"])

    async def _inspect(self) -> Mapping[str, Any] | None:
        try:
            inspected: Mapping[str, Any] = await self._engine.get(f"/images/{pause_image.REFERENCE}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise ImageError(f"image {pause_image.REFERENCE} cannot be looked up: {error}") from error
        return inspected
