"""The layout of a volume of files on disk, and the archives that create it. Pure.

As in kubelet (pkg/volume/util/atomic_writer.go): the files are in a folder named after their content, `..data` is a
link to it, and each name at the top is a link through `..data`. Renaming a new link over `..data` applies a change as a
whole.
"""

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.runtime.model import File

ROOT = "/volume"
"""Where the helper mounts the volume."""
DATA, NEXT, LINKS = "..data", "..data_tmp", "..links"
_DIGITS = 24


def folder(files: Mapping[str, File]) -> str:
    """Return the name of the folder for this content: the same for the same files and modes."""
    digest = hashlib.sha256()
    for path in sorted(files):
        head = f"{path}\0{files[path].mode:o}\0{len(files[path].data)}\0"
        digest.update(head.encode())
        digest.update(files[path].data)
    return f"..{digest.hexdigest()[:_DIGITS]}"


def top(files: Iterable[str]) -> set[str]:
    """Return the first parts of paths: what users see in the volume."""
    return {path.partition("/")[0] for path in files}


def first(files: Mapping[str, File], at: float) -> bytes:
    """Return the archive for an empty volume, to be unpacked in its root.

    Args:
        at: modification time of the files, epoch seconds.
    """
    return _archive(files, DATA, top(files), at)


def following(before: "VolumeContent", files: Mapping[str, File], at: float) -> bytes:
    """Return the archive of new content beside the current one, with the links that are renamed into place."""
    return _archive(files, NEXT, _new(before, files), at, links_in=f"{LINKS}/")


@dataclass(frozen=True, slots=True)
class VolumeContent:
    """What is in a volume."""

    data: str
    """Folder that `..data` links to; empty when there is none."""
    paths: tuple[str, ...]
    """Everything in it, relative to its root."""


def read_content(archive: bytes) -> VolumeContent:
    """Read the engine's archive of the volume's root: all names begin with the root's own."""
    data, paths = "", []
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            path = member.name.partition("/")[2]
            if path == DATA:
                data = posixpath.basename(member.linkname)
            elif path:
                paths.append(path)
    return VolumeContent(data, tuple(paths))


def stale(before: VolumeContent, files: Mapping[str, File]) -> list[str]:
    """Return the paths that are unused after the change, those in a folder before the folder."""
    kept, current = top(files), folder(files)
    gone = [path for path in before.paths if path.partition("/")[0] not in {*kept, current, NEXT}]
    return sorted(gone, key=lambda path: (-path.count("/"), path))


def swap(before: VolumeContent, files: Mapping[str, File]) -> list[str]:
    """Return the arguments of the helper's program: pairs to rename, then paths to remove."""
    renamed = [NEXT, DATA]
    for name in sorted(_new(before, files)):
        renamed += [f"{LINKS}/{name}", name]
    removed = [*stale(before, files), LINKS]
    return [*(f"{ROOT}/{path}" for path in renamed), "", *(f"{ROOT}/{path}" for path in removed)]


def emptied(folders: Sequence[str], *, root: bool) -> bytes:
    """Return an archive of folders that every user may write to, and of the root if requested; unpacked *beside* it."""
    name = posixpath.basename(ROOT)
    members = [
        tarfile.TarInfo(posixpath.normpath(f"{name}/{path}"))
        for path in ([""] if root else []) + _with_parents(folders)
    ]
    for member in members:
        member.type, member.mode = tarfile.DIRTYPE, 0o777
    return _packed(members, {})


def _new(before: VolumeContent, files: Mapping[str, File]) -> set[str]:
    return top(files) - top(before.paths)


def _archive(files: Mapping[str, File], link: str, names: set[str], at: float, links_in: str = "") -> bytes:
    target = folder(files)
    members = []
    for path in ["", *_with_parents(posixpath.dirname(path) for path in files)]:
        member = tarfile.TarInfo(posixpath.normpath(f"{target}/{path}"))
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        members.append(member)
    contents = {f"{target}/{path}": file for path, file in sorted(files.items())}
    for name, file in contents.items():
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(file.data), file.mode
        members.append(member)
    members.append(_link(link, target))
    if links_in:
        member = tarfile.TarInfo(links_in.rstrip("/"))
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        members.append(member)
    members += [_link(links_in + name, f"{DATA}/{name}") for name in sorted(names)]
    for member in members:
        member.mtime = int(at)
    return _packed(members, {name: file.data for name, file in contents.items()})


def _link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    return member


def _packed(members: Iterable[tarfile.TarInfo], contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            data = contents.get(member.name)
            archive.addfile(member, io.BytesIO(data) if data is not None else None)
    return buffer.getvalue()


def _with_parents(folders: Iterable[str]) -> list[str]:
    """Return folders and their parents, each after its parent."""
    parts = [path.split("/") for path in folders if path]
    return sorted({"/".join(each[:end]) for each in parts for end in range(1, len(each) + 1)})
