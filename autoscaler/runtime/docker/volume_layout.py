"""How a volume of files lies on disk, and the archives that bring it there. Pure.

As the kubelet does it (pkg/volume/util/atomic_writer.go): the files lie in a folder of this very content, `..data` is
a link to it, and each name at the top is a link through `..data`; renaming a new link over `..data` shows all of a
change at once.
"""

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.runtime.protocol import File

ROOT = "/volume"
"""Where the helper has the volume."""
DATA, NEXT, LINKS = "..data", "..data_tmp", "..links"
_DIGITS = 24


def folder(files: Mapping[str, File]) -> str:
    """Name of the folder for this content: the same for the same files and modes."""
    digest = hashlib.sha256()
    for path in sorted(files):
        head = f"{path}\0{files[path].mode:o}\0{len(files[path].data)}\0"
        digest.update(head.encode())
        digest.update(files[path].data)
    return f"..{digest.hexdigest()[:_DIGITS]}"


def top(files: Iterable[str]) -> set[str]:
    """First parts of paths: what users see in the volume."""
    return {path.partition("/")[0] for path in files}


def first(files: Mapping[str, File], at: float) -> bytes:
    """All of a volume in which nothing is yet, to be unpacked in its root.

    Args:
        at: epoch seconds that the files show as the time of their last change.
    """
    return _archive(files, DATA, top(files), at)


def following(before: "Seen", files: Mapping[str, File], at: float) -> bytes:
    """The new content beside the one in use, and the links that are to be renamed to where users look."""
    return _archive(files, NEXT, _new(before, files), at, links_in=f"{LINKS}/")


@dataclass(frozen=True, slots=True)
class Seen:
    """A volume as it is."""

    data: str
    """Folder that `..data` leads to; empty when it has none."""
    paths: tuple[str, ...]
    """Everything in it, relative to its root."""


def seen(archive: bytes) -> Seen:
    """Read an archive of the volume's root, as the engine gives it: all names begin with the root's own."""
    data, paths = "", []
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            path = member.name.partition("/")[2]
            if path == DATA:
                data = posixpath.basename(member.linkname)
            elif path:
                paths.append(path)
    return Seen(data, tuple(paths))


def stale(before: Seen, files: Mapping[str, File]) -> list[str]:
    """Paths that are of no use after the change, those in a folder before the folder."""
    kept, current = top(files), folder(files)
    gone = [path for path in before.paths if path.partition("/")[0] not in {*kept, current, NEXT}]
    return sorted(gone, key=lambda path: (-path.count("/"), path))


def swap(before: Seen, files: Mapping[str, File]) -> list[str]:
    """Arguments of the helper's program: what is renamed to what, then what is removed."""
    renamed = [NEXT, DATA]
    for name in sorted(_new(before, files)):
        renamed += [f"{LINKS}/{name}", name]
    removed = [*stale(before, files), LINKS]
    return [*(f"{ROOT}/{path}" for path in renamed), "", *(f"{ROOT}/{path}" for path in removed)]


def emptied(folders: Sequence[str], *, root: bool) -> bytes:
    """Folders, and the root itself if asked for, open to every user; to be unpacked *beside* the root."""
    name = posixpath.basename(ROOT)
    made = [
        tarfile.TarInfo(posixpath.normpath(f"{name}/{path}")) for path in ([""] if root else []) + _with_above(folders)
    ]
    for one in made:
        one.type, one.mode = tarfile.DIRTYPE, 0o777
    return _packed(made, {})


def _new(before: Seen, files: Mapping[str, File]) -> set[str]:
    return top(files) - top(before.paths)


def _archive(files: Mapping[str, File], link: str, names: set[str], at: float, links_in: str = "") -> bytes:
    where = folder(files)
    members = []
    for path in ["", *_with_above(posixpath.dirname(path) for path in files)]:
        made = tarfile.TarInfo(posixpath.normpath(f"{where}/{path}"))
        made.type, made.mode = tarfile.DIRTYPE, 0o755
        members.append(made)
    contents = {f"{where}/{path}": file for path, file in sorted(files.items())}
    for name, file in contents.items():
        made = tarfile.TarInfo(name)
        made.size, made.mode = len(file.data), file.mode
        members.append(made)
    members.append(_link(link, where))
    if links_in:
        made = tarfile.TarInfo(links_in.rstrip("/"))
        made.type, made.mode = tarfile.DIRTYPE, 0o755
        members.append(made)
    members += [_link(links_in + name, f"{DATA}/{name}") for name in sorted(names)]
    for one in members:
        one.mtime = int(at)
    return _packed(members, {name: file.data for name, file in contents.items()})


def _link(name: str, target: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = tarfile.SYMTYPE, target, 0o777
    return made


def _packed(members: Iterable[tarfile.TarInfo], contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one in members:
            data = contents.get(one.name)
            archive.addfile(one, io.BytesIO(data) if data is not None else None)
    return buffer.getvalue()


def _with_above(folders: Iterable[str]) -> list[str]:
    """Folders and those that they lie in, each after the one it lies in."""
    parts = [path.split("/") for path in folders if path]
    return sorted({"/".join(each[:end]) for each in parts for end in range(1, len(each) + 1)})
