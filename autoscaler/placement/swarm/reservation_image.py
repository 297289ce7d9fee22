"""The image of reservations: a program that only sleeps. Its bytes, and therefore its id, are equal on all machines.

Services refer to it by id: Swarm would try to pull a name at each start. It is loaded, not imported as the sandbox's
image is, because the id of an imported image depends on the time. All engines of a platform need one architecture and
one kind of image store, classic or containerd's, because their ids differ.
"""

import hashlib
import io
import json
import tarfile

from autoscaler.runtime.docker import pause_image
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.docker.own_image import architecture_of
from knoll.values.errors import ImageError

VERSION = "1"
REFERENCE = f"knoll/reservation:{VERSION}"
"""Raise `VERSION` with each change of the image, and change its ids in `knoll.engine_proxy.reservations`."""


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _parts(architecture: str) -> tuple[bytes, bytes]:
    """Return the layer and the configuration."""
    layer = _tar({"pause": pause_image.program(architecture)}, 0o755)
    settings = {"Entrypoint": ["/pause"], "User": pause_image.USER, "Labels": {pause_image.LABEL: VERSION}}
    configuration = {
        "architecture": architecture, "os": "linux", "created": "1970-01-01T00:00:00Z", "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "knoll"}],
    }  # fmt: skip
    return layer, _json(configuration)


def image_id(architecture: str) -> str:
    """Return the id of the image on an engine with the classic image store.

    Args: architecture: `amd64` or `arm64`.
    """
    return _digest(_parts(architecture)[1])


def archive(architecture: str) -> bytes:
    """Return the image in the format of `docker load`, the same bytes each time.

    Args: architecture: `amd64` or `arm64`.
    """
    layer, configuration = _parts(architecture)
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = _json([{"Config": name, "RepoTags": [REFERENCE], "Layers": ["layer.tar"]}])
    return _tar({"layer.tar": layer, name: configuration, "manifest.json": manifest})


async def ensure(engine: Engine) -> str:
    """Create the image on an engine where it is missing; returns its id.

    Raises:
        ImageError: the engine's architecture is neither amd64 nor arm64, or it stores the image in another form.
        EngineError, RuntimeUnavailableError: the engine refuses or is unavailable.
    """
    architecture = architecture_of((await engine.get("/version"))["Arch"])
    expected = image_id(architecture)
    if not await _exists(engine, expected):
        await engine.post("/images/load", archive(architecture), {"quiet": 1})
        if not await _exists(engine, expected):
            raise ImageError(f"the engine does not have {REFERENCE} as {expected} after it was loaded")
    return expected


async def _exists(engine: Engine, image: str) -> bool:
    try:
        await engine.get(f"/images/{image}/json")
    except EngineError as error:
        if error.status != 404:
            raise
        return False
    return True
