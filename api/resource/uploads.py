"""Uploads of sources for builds: `POST /namespaces/NS/uploads` stores a tar archive under the hash of its content.

Each namespace has its own folder, ids and quota.

An archive is streamed into a temporary file while its hash is computed, and renamed to its id at the end; it is never
in memory as a whole.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from api.http.metrics import ApiMetrics
from knoll.values.errors import BadRequestError, ForbiddenError, NotFoundError, StorageFullError, TooLargeError

log = structlog.get_logger()

_ID = re.compile(r"sha256-[0-9a-f]{64}")
_PART = ".part"
_PIECE = 1024 * 1024
ABANDONED_SECONDS = 24 * 3600
"""Age at which the temporary file of an unfinished upload is removed, in seconds."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored archive."""

    id: str
    """`sha256-<64 hex>`, which is also the file name."""
    size: int
    """Bytes."""


class Uploads:
    """The folder of uploaded archives; the builder reads it too."""

    def __init__(
        self,
        folder: Path,
        limit: int,
        metrics: ApiMetrics,
        check: Callable[[], None] = lambda: None,
        quota: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        Args:
            limit: largest size of an archive, in bytes.
            check: raises StorageFullError while no upload is accepted.
            quota: returns the limit of all archives of a namespace, in bytes; 0 is no limit.
        """
        self._check = check
        self._quota = quota
        self._folder = folder
        self._limit = limit
        self._metrics = metrics

    def prepare(self) -> None:
        """Create the folder, and remove the remains of unfinished uploads from it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - ABANDONED_SECONDS
        for path in self._folder.glob(f"*/*{_PART}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def find(self, namespace: str, upload_id: str) -> Upload:
        """Raises: NotFoundError."""
        if _ID.fullmatch(upload_id):
            path = self._folder / namespace / upload_id
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                # The archive is in use again: the clean-up by age must not remove it.
                os.utime(path)
                return Upload(upload_id, size)
        raise NotFoundError(f'uploads "{upload_id[:80]}" not found')

    def path(self, namespace: str, upload_id: str) -> Path:
        """Return the path of an upload that `find` returned."""
        return self._folder / namespace / upload_id

    async def take(self, namespace: str, chunks: AsyncIterator[bytes], declared: int | None) -> Upload:
        """Store a stream in the folder of a namespace.

        Args:
            namespace: must exist.
            declared: length from the request's headers, in bytes; None if unknown.

        Raises: In each case, nothing of the upload is kept.
            TooLargeError: the upload exceeds the limit. ForbiddenError: it exceeds the quota of the namespace.
            BadRequestError: it is empty or incomplete. StorageFullError: the disk is full, or nearly full.
        """
        if declared is not None and declared > self._limit:
            raise self._too_large(str(declared))
        self._check()
        folder = self._folder / namespace
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        quota = self._quota()
        used = await asyncio.to_thread(_size, folder) if quota else 0
        if quota:
            _check_quota(namespace, used, declared or 0, quota)
        handle, name = await asyncio.to_thread(tempfile.mkstemp, suffix=_PART, dir=folder)
        part = Path(name)
        digest, size = hashlib.sha256(), 0
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                async for piece in _pieces(chunks):
                    size += len(piece)
                    if size > self._limit:
                        raise self._too_large(f"more than {size - len(piece)}" if declared is None else str(declared))
                    if quota:
                        _check_quota(namespace, used, size, quota)
                    await asyncio.to_thread(_add, file.fileno(), digest, piece)
                    self._metrics.upload_bytes.inc(len(piece))
                if not size:
                    raise BadRequestError("the upload is empty: send a tar archive as the body of the request")
                if declared is not None and declared != size:
                    raise BadRequestError(f"the upload ended after {size} of {declared} bytes")
                upload = Upload(f"sha256-{digest.hexdigest()}", size)
                await asyncio.to_thread(_keep, file.fileno(), part, folder / upload.id)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageFullError(
                f"the disk was full after {size} bytes of the upload, which was discarded: free space on the disk of "
                f"{self._folder} (KNOLL_UPLOADS_DIR); `docker builder prune` removes the build cache"
            ) from error
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        log.info("upload stored", id=upload.id, size=size)
        return upload

    def _too_large(self, size: str) -> TooLargeError:
        return TooLargeError(
            f"the upload is too large: {size} bytes, and the limit is {self._limit} bytes (KNOLL_MAX_UPLOAD_BYTES)"
        )


def _size(folder: Path) -> int:
    """Size of all files in a folder, in bytes, including unfinished ones."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _check_quota(namespace: str, used: int, size: int, quota: int) -> None:
    if used + size > quota:
        raise ForbiddenError(
            f'uploads is forbidden: exceeded quota: upload-quota of the namespace "{namespace}", requested: '
            f"{size} bytes, used: {used} bytes, limited: {quota} bytes; unused uploads are deleted after a day"
        )


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are large enough for a switch to another thread."""
    waiting: list[bytes] = []
    size = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _add(handle: int, digest: "hashlib._Hash", piece: bytes) -> None:
    digest.update(piece)
    view = memoryview(piece)
    while view:
        view = view[os.write(handle, view) :]


def _keep(handle: int, part: Path, final: Path) -> None:
    os.fsync(handle)
    # The builder may run as another user.
    os.fchmod(handle, 0o644)
    part.replace(final)
