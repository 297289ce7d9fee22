"""A source folder as a tar: what `.dockerignore` leaves of it, the same bytes for the same files."""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from knoll.values.errors import SourceError

NEVER_SOURCE = (".git", "**/node_modules", "**/.venv", "**/venv", "**/__pycache__", "**/.env")
"""Left out of a folder whose Dockerfile is ours, unless it has a .dockerignore of its own."""


def files(folder: Path, dockerfile: str, otherwise: Sequence[str] = ()) -> list[str]:
    """Paths of what belongs to the source, sorted, relative to the folder; directories included.

    Args: otherwise: what is left out when there is no .dockerignore.
    """
    ignore = folder / ".dockerignore"
    patterns = list(otherwise)
    if ignore.is_file():
        lines = (line.strip() for line in ignore.read_text().splitlines())
        patterns = [line for line in lines if line and not line.startswith("#")]
    if not patterns:
        return sorted(_all(folder))
    # Loading the SDK takes longer than packing most sources.
    from docker.utils.build import exclude_paths

    return sorted(exclude_paths(str(folder), patterns, dockerfile=dockerfile))


def _all(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield os.path.relpath(os.path.join(parent, name), folder)


def pack(folder: Path, dockerfile: str, target: IO[bytes], generated: str = "") -> int:
    """Write the tar; returns how many entries it has.

    Args: generated: text of a Dockerfile that is not in the folder; it goes in under `dockerfile`.

    Owners are left out and modification times are whole seconds, so that the same checkout gives the same bytes.

    Raises: SourceError when a file cannot be read, or is neither file, directory nor link.
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
            # Sockets give None; other special files have no place in an image either.
            if entry is None or not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
                raise SourceError(f"{folder / name} is neither file, directory nor link: add it to .dockerignore")
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
