"""Archives unpacked on a real disk, as the engine unpacks them, show the requested files."""

import io
import subprocess
import tarfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker import volume_layout as layout
from autoscaler.runtime.model import File
from tests.unit.autoscaler.runtime.docker.test_pause_image import on_linux, written

NAMES = st.sampled_from(["a", "b", "c.txt", "deep"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.builds(File, st.binary(max_size=20), st.sampled_from([0o644, 0o600, 0o755]))


@st.composite
def volumes(draw: st.DrawFn) -> dict[str, File]:
    """Files of which none is below another."""
    files = draw(st.dictionaries(PATHS, CONTENTS, max_size=5))
    return {path: file for path, file in files.items() if not any(path.startswith(f"{other}/") for other in files)}


def unpack(archive: bytes, where: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(where, filter="tar")


def shown(root: Path) -> dict[str, bytes]:
    """What a user of the volume finds, by the names that do not begin with `..`."""
    content: dict[str, bytes] = {}
    for top in root.iterdir():
        if not top.name.startswith(".."):
            inner = [path for path in top.rglob("*") if path.is_file()] if top.is_dir() else [top]
            content |= {str(path.relative_to(root)): path.read_bytes() for path in inner}
    return content


def packed(root: Path) -> bytes:
    """As `GET /containers/ID/archive` gives a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(root, arcname="volume")
    return buffer.getvalue()


@on_linux
@given(first=volumes(), second=volumes())
def test_after_a_change_exactly_the_new_files_exist(
    tmp_path_factory: object, first: dict[str, File], second: dict[str, File]
) -> None:
    base = tmp_path_factory.mktemp("volume")  # type: ignore[attr-defined]
    root = base / "volume"
    root.mkdir()
    unpack(layout.first(first, 1e9), root)
    assert shown(root) == {path: file.data for path, file in first.items()}
    before = layout.read_content(packed(root))
    assert before.data == layout.folder(first)
    if before.data == layout.folder(second):
        return
    unpack(layout.following(before, second, 1e9), root)
    assert shown(root) == {path: file.data for path, file in first.items()}
    arguments = [word.replace(layout.ROOT, str(root), 1) for word in layout.swap(before, second)]
    assert subprocess.run([written(base, "swap"), *arguments]).returncode == 0
    assert shown(root) == {path: file.data for path, file in second.items()}
    assert {each.name for each in root.iterdir()} == {layout.DATA, layout.folder(second), *layout.top(second)}
    for path, file in second.items():
        assert (root / path).stat().st_mode & 0o777 == file.mode


@given(files=volumes(), path=PATHS, other=CONTENTS)
def test_the_name_of_a_folder_depends_on_its_content(files: dict[str, File], path: str, other: File) -> None:
    changed = {**files, path: other}
    assert (layout.folder(changed) == layout.folder(files)) == (changed == files)
    assert layout.folder(dict(reversed(files.items()))) == layout.folder(files)


def test_writable_folders_are_open_to_all_users_and_come_after_their_parents() -> None:
    with tarfile.open(fileobj=io.BytesIO(layout.emptied(["a/b", "c"], root=True))) as archive:
        members = [(member.name, member.mode, member.isdir()) for member in archive]
    assert [name for name, _, _ in members] == ["volume", "volume/a", "volume/a/b", "volume/c"]
    assert {(mode, folder) for _, mode, folder in members} == {(0o777, True)}


def test_an_existing_folder_is_left_out() -> None:
    with tarfile.open(fileobj=io.BytesIO(layout.emptied(["c"], root=False))) as archive:
        assert archive.getnames() == ["volume/c"]
