"""Transfers images between the engine and BuildKit through a folder of blobs, an OCI image layout.

Base images are saved here once, and read by BuildKit unless it has them. BuildKit writes its images here, without the
layers that are here already; they are loaded into the engine, without the layers that it has.
"""

import contextlib
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import docker
from docker.errors import APIError, ImageNotFound

from knoll.values.errors import ImageError
from knoll.values.json import Json

KEEP_SECONDS = 24 * 3600
"""Age, since its last use, at which a blob is removed."""
_CHUNK = 1024 * 1024
_PART = ".part"


class Layers:
    """The folder. Several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._saved = folder / "saved"

    def prepare(self) -> None:
        """Create the folder."""
        for folder in (self._blobs, self._saved):
            folder.mkdir(parents=True, exist_ok=True)
        layout = self.folder / "oci-layout"
        if not layout.exists():
            layout.write_text('{"imageLayoutVersion": "1.0.0"}')

    def save(self, client: docker.DockerClient, image_id: str) -> str:
        """Save an image of the engine here, unless it is here already.

        Returns: the digest of its manifest.

        Raises: ImageError: the engine has no such image, or cannot write it as an OCI layout (before Docker 25).
        """
        mark = self._saved / image_id.removeprefix("sha256:")
        with contextlib.suppress(FileNotFoundError):
            digest = mark.read_text()
            if self._touch(digest):
                os.utime(mark)
                return digest
        try:
            stream = client.api.get_image(image_id)
            index = self._unpack(stream)
        except ImageNotFound as error:
            raise ImageError(f"the engine has no image {image_id}") from error
        manifests = index.get("manifests") or []
        if len(manifests) != 1:
            raise ImageError(
                f"the engine cannot export image {image_id} as an OCI layout, which needs Docker 25 or later"
            )
        digest = str(manifests[0]["digest"])
        _write(mark, io.BytesIO(digest.encode()))
        return digest

    def _unpack(self, stream: Iterable[bytes]) -> Json:
        """Save the blobs of an archive; returns its index."""
        index: Json = {}
        with tarfile.open(fileobj=_Reader(stream), mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                if member.name == "index.json":
                    index = json.load(content)
                elif member.name.startswith("blobs/sha256/"):
                    path = self._blobs / Path(member.name).name
                    if not path.exists():
                        _write(path, content)
        return index

    def _touch(self, digest: str) -> bool:
        """Mark an image as used now; returns whether all of its blobs are here."""
        try:
            manifest = json.loads(self._blob(digest).read_bytes())
            for blob in (digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])):
                os.utime(self._blob(blob))
        except FileNotFoundError:
            return False
        return True

    def load(self, client: docker.DockerClient, digest: str, name: str, relatives: Sequence[str]) -> str:
        """Load an image that BuildKit wrote here into the engine.

        Args:
            digest: of its manifest.
            name: its name on the engine.
            relatives: names and ids of images on the engine that may have the same first layers.

        Returns: its id.
        """
        self._touch(digest)
        manifest = json.loads(self._blob(digest).read_bytes())
        config = manifest["config"]["digest"]
        layers = [layer["digest"] for layer in manifest["layers"]]
        diff_ids = json.loads(self._blob(config).read_bytes())["rootfs"]["diff_ids"]
        shared = max((_common(diff_ids, _layers_of(client, relative)) for relative in relatives), default=0)
        try:
            self._send(client, name, config, layers, layers[shared:])
        except (APIError, ImageError):
            if not shared:
                raise
            # Some engines need all layers in the archive, or the related image has been removed in the meantime.
            self._send(client, name, config, layers, layers)
        return str(client.images.get(name).id)

    def _send(
        self, client: docker.DockerClient, name: str, config: str, layers: Sequence[str], sent: Sequence[str]
    ) -> None:
        content = json.dumps(
            [{"Config": _path(config), "RepoTags": [name], "Layers": [_path(layer) for layer in layers]}]
        )
        api: Any = client.api  # load_image has no annotations
        for line in api.load_image(self._archive(content.encode(), [config, *dict.fromkeys(sent)]), quiet=True):
            if error := line.get("error"):
                raise ImageError(f"the engine refuses the image: {error}")

    def _archive(self, manifest: bytes, blobs: Sequence[str]) -> Iterator[bytes]:
        yield _header("manifest.json", len(manifest)) + manifest + _padding(len(manifest))
        for digest in blobs:
            with self._blob(digest).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                yield _header(_path(digest), size)
                while chunk := file.read(_CHUNK):
                    yield chunk
                yield _padding(size)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def prune(self, most: int, busy_seconds: float, now: float) -> None:
        """Remove blobs that were not used for a day, then the least recently used beyond a limit.

        Args:
            most: bytes; 0 for no limit.
            busy_seconds: blobs that were used within this time are kept for running builds.
        """
        files = sorted((stat.st_mtime, stat.st_size, path) for path in self._files() if (stat := _stat(path)))
        total = sum(size for _, size, _ in files)
        for used, size, path in files:
            if used > now - busy_seconds:
                break
            if used < now - KEEP_SECONDS or (most and total > most):
                path.unlink(missing_ok=True)
                total -= size
        # BuildKit's client adds each image to the index, which is not needed: images are found by digest.
        index = self.folder / "index.json"
        if (stat := _stat(index)) and stat.st_mtime < now - busy_seconds:
            index.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        yield from self._blobs.glob("*")
        yield from self._saved.glob("*")
        yield from (self.folder / "ingest").glob("*/*")

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")


def _layers_of(client: docker.DockerClient, reference: str) -> Sequence[str]:
    try:
        return client.images.get(reference).attrs["RootFS"].get("Layers") or ()
    except APIError:
        return ()


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    count = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        count += 1
    return count


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, int(time.time())
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _write(path: Path, content: IO[bytes]) -> None:
    """Write a file atomically."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=_PART, delete=False) as file:
        try:
            while chunk := content.read(_CHUNK):
                file.write(chunk)
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


class _Reader(io.RawIOBase):
    """A readable file made of chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, missing = [], size
        while missing > 0:
            if not self._rest:
                following = next(self._chunks, None)
                if following is None:
                    break
                self._rest = memoryview(following)
                continue
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(bytes(part))
            missing -= len(part)
        return b"".join(parts)
