"""Checks archives of uploaded source. Reads an archive once, as a stream, and unpacks nothing."""

import io
import posixpath
import tarfile
from pathlib import Path

from knoll.values.errors import SourceError

MAX_FILES = 200_000
MAX_DOCKERFILE_BYTES = 1024 * 1024
MAX_UNPACKED_BYTES = 16 * 1024**3
"""Limit that keeps a small archive from filling the disk when it is unpacked."""


def check(archive: Path, dockerfile: str) -> str:
    """Refuse an archive that is broken, has paths outside of itself, or has no Dockerfile.

    Args:
        archive: a tar file, plain or compressed with gzip, bzip2 or xz.
        dockerfile: path in the archive.

    Returns: the Dockerfile's text; empty when it is a link or too long.

    Raises: SourceError: names the entry and the problem.
    """
    path = posixpath.normpath(dockerfile)
    try:
        with tarfile.open(archive, "r|*") as entries:
            names, text = _read(entries, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"the uploaded source is not a readable tar archive: {error}") from error
    if path not in names:
        top_level = ", ".join(sorted(name for name in names if "/" not in name)[:20]) or "nothing"
        raise SourceError(f"the source has no {dockerfile}; its top level has: {top_level}")
    return text


def _read(entries: tarfile.TarFile, dockerfile: str) -> tuple[set[str], str]:
    names: set[str] = set()
    size, text = 0, ""
    for entry in entries:
        problem = refuse(entry)
        if problem:
            raise SourceError(f"the source contains {entry.name!r}, which is refused: {problem}")
        size += entry.size
        name = posixpath.normpath(entry.name)
        names.add(name)
        if len(names) > MAX_FILES:
            raise SourceError(f"the source has more than {MAX_FILES} files; exclude those that the build does not need")
        if size > MAX_UNPACKED_BYTES:
            raise SourceError(f"the source is larger than {MAX_UNPACKED_BYTES // 1024**3} GiB when unpacked")
        if name == dockerfile and entry.isfile() and entry.size <= MAX_DOCKERFILE_BYTES:
            content = entries.extractfile(entry)
            text = content.read().decode(errors="replace") if content else ""
    return names, text


def with_dockerfile(archive: Path, target: Path, dockerfile: str, text: str) -> None:
    """Copy an archive, uncompressed, and replace its Dockerfile."""
    content = text.encode()
    with tarfile.open(archive, "r|*") as entries, tarfile.open(target, "w|") as copy:
        for entry in entries:
            if posixpath.normpath(entry.name) == posixpath.normpath(dockerfile):
                entry.size = len(content)
                copy.addfile(entry, io.BytesIO(content))
            else:
                copy.addfile(entry, entries.extractfile(entry) if entry.isfile() else None)


def refuse(entry: tarfile.TarInfo) -> str:
    """Return the problem of an entry; empty when it has none."""
    if _escapes(entry.name):
        return "its path is outside of the source"
    if entry.issym() and _escapes(posixpath.join(posixpath.dirname(entry.name), entry.linkname)):
        return f"it is a symbolic link to {entry.linkname!r}, outside of the source"
    if entry.islnk() and _escapes(entry.linkname):
        return f"it is a hard link to {entry.linkname!r}, outside of the source"
    if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
        return "it is not a file, directory or link"
    return ""


def _escapes(path: str) -> bool:
    return path.startswith("/") or "\0" in path or posixpath.normpath(path).split("/")[0] == ".."
