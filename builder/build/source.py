"""Uploaded source: is this archive one that may be built? Reads it once, as a stream; unpacks nothing."""

import io
import posixpath
import tarfile
from pathlib import Path

from knoll.values.errors import SourceError

MAX_FILES = 200_000
MAX_DOCKERFILE_BYTES = 1024 * 1024
MAX_UNPACKED_BYTES = 16 * 1024**3
"""A small archive must not fill the disk when it is unpacked."""


def check(archive: Path, dockerfile: str) -> str:
    """Refuse an archive that is broken, reaches outside of itself, or has no Dockerfile.

    Args:
        archive: a tar file, plain or compressed with gzip, bzip2 or xz.
        dockerfile: path in the archive.

    Returns: the Dockerfile's text; empty when it is a link or too long to be read here.

    Raises: SourceError that names the entry and says what is wrong with it.
    """
    wanted = posixpath.normpath(dockerfile)
    try:
        with tarfile.open(archive, "r|*") as entries:
            names, text = _read(entries, wanted)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"the uploaded source is not a readable tar archive: {error}") from error
    if wanted not in names:
        seen = ", ".join(sorted(name for name in names if "/" not in name)[:20]) or "nothing"
        raise SourceError(f"the source has no {dockerfile}; at its top level it has: {seen}")
    return text


def _read(entries: tarfile.TarFile, dockerfile: str) -> tuple[set[str], str]:
    names: set[str] = set()
    size, text = 0, ""
    for entry in entries:
        problem = refuse(entry)
        if problem:
            raise SourceError(f"the source may not hold {entry.name!r}: {problem}")
        size += entry.size
        name = posixpath.normpath(entry.name)
        names.add(name)
        if len(names) > MAX_FILES:
            raise SourceError(f"the source has more than {MAX_FILES} files; leave out what the build does not need")
        if size > MAX_UNPACKED_BYTES:
            raise SourceError(f"the source is larger than {MAX_UNPACKED_BYTES // 1024**3} GiB when it is unpacked")
        if name == dockerfile and entry.isfile() and entry.size <= MAX_DOCKERFILE_BYTES:
            content = entries.extractfile(entry)
            text = content.read().decode(errors="replace") if content else ""
    return names, text


def with_dockerfile(archive: Path, target: Path, dockerfile: str, text: str) -> None:
    """Write the same archive, uncompressed, with another Dockerfile."""
    content = text.encode()
    with tarfile.open(archive, "r|*") as entries, tarfile.open(target, "w|") as copy:
        for entry in entries:
            if posixpath.normpath(entry.name) == posixpath.normpath(dockerfile):
                entry.size = len(content)
                copy.addfile(entry, io.BytesIO(content))
            else:
                copy.addfile(entry, entries.extractfile(entry) if entry.isfile() else None)


def refuse(entry: tarfile.TarInfo) -> str:
    """What is wrong with an entry; empty when nothing is."""
    if _escapes(entry.name):
        return "its path leads out of the source"
    if entry.issym() and _escapes(posixpath.join(posixpath.dirname(entry.name), entry.linkname)):
        return f"it is a symbolic link to {entry.linkname!r}, out of the source"
    if entry.islnk() and _escapes(entry.linkname):
        return f"it is a hard link to {entry.linkname!r}, out of the source"
    if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
        return "it is neither file, directory nor link"
    return ""


def _escapes(path: str) -> bool:
    return path.startswith("/") or "\0" in path or posixpath.normpath(path).split("/")[0] == ".."
