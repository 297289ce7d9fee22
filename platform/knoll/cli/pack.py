"""Packs a source folder without the files in `.dockerignore`; equal files give equal bytes."""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from knoll.values.errors import SourceError

NEVER_SOURCE = (".git", "**/node_modules", "**/.venv", "**/venv", "**/__pycache__", "**/.env")
"""Excluded from a folder with a generated Dockerfile, unless it has a .dockerignore."""


def files(folder: Path, dockerfile: str, otherwise: Sequence[str] = ()) -> list[str]:
    """Return the sorted relative paths of the source's files and directories.

    Args: otherwise: patterns to exclude without a .dockerignore.
    """
    ignore = folder / ".dockerignore"
    patterns = list(otherwise)
    if ignore.is_file():
        lines = (line.strip() for line in ignore.read_text().splitlines())
        patterns = [line for line in lines if line and not line.startswith("#")]
    if not patterns:
        return sorted(_all(folder))
    # Importing the SDK takes longer than packing most sources.
    from docker.utils.build import exclude_paths

    return sorted(exclude_paths(str(folder), patterns, dockerfile=dockerfile))


def _all(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield os.path.relpath(os.path.join(parent, name), folder)


def pack(folder: Path, dockerfile: str, target: IO[bytes], generated: str = "") -> int:
    """Write the tar archive and return its number of entries.

    Owners are omitted and modification times cut to whole seconds, so that equal checkouts give equal bytes.

    Args: generated: text of a generated Dockerfile, which is added as `dockerfile`.

    Raises: SourceError when a file cannot be read, or is not a file, directory or link.
    """
    count = 0
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        if generated:
            extra = tarfile.TarInfo(dockerfile)
            extra.size = len(generated.encode())
            archive.addfile(extra, io.BytesIO(generated.encode()))
            count += 1
        for name in files(folder, dockerfile, NEVER_SOURCE if generated else ()):
            entry = archive.gettarinfo(str(folder / name), arcname=name)
            # None for sockets; other special files do not belong into an image either.
            if entry is None or not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
                raise SourceError(f"{folder / name} is not a file, directory or link: add it to .dockerignore")
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = int(entry.mtime)
            try:
                if entry.isfile():
                    with (folder / name).open("rb") as source:
                        archive.addfile(entry, source)
                else:
                    archive.addfile(entry)
            except OSError as error:
                raise SourceError(f"{folder / name} cannot be read: {error}") from error
            count += 1
    return count
