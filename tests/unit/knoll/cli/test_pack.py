"""Which files of a folder go into a source, with and without `.dockerignore`."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths
from hypothesis import given
from hypothesis import strategies as st

from knoll.cli.pack import files, pack
from knoll.values.errors import SourceError

NAME = st.from_regex(r"[a-c.]{1,3}", fullmatch=True).filter(lambda name: name.strip("."))


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


@given(names=st.sets(st.tuples(NAME, NAME), max_size=6))
def test_without_patterns_all_is_taken_as_docker_takes_it(
    tmp_path_factory: pytest.TempPathFactory, names: set[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("source")
    write(folder, *(f"{first}-d/{second}-f" for first, second in names))
    assert files(folder, "Dockerfile") == sorted(exclude_paths(str(folder), [], dockerfile="Dockerfile"))


def test_links_are_taken_as_links(tmp_path: Path) -> None:
    write(tmp_path, "real/file")
    os.symlink("real", tmp_path / "link")
    assert files(tmp_path, "Dockerfile") == ["link", "real", "real/file"]
    out = io.BytesIO()
    pack(tmp_path, "Dockerfile", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert archive.getmember("link").type == tarfile.SYMTYPE


def test_what_is_ignored_stays_here_and_the_dockerfile_never_does(tmp_path: Path) -> None:
    write(tmp_path, "Dockerfile", "main.go", "notes.md", "kept.md", "node_modules/x")
    (tmp_path / ".dockerignore").write_text("# comment\n\n*.md\n!kept.md\nnode_modules\nDockerfile\n")
    assert files(tmp_path, "Dockerfile") == [".dockerignore", "Dockerfile", "kept.md", "main.go"]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    def packed() -> bytes:
        out = io.BytesIO()
        pack(tmp_path, "Dockerfile", out, generated="FROM scratch\n")
        return out.getvalue()

    write(tmp_path, "b", "a/c")
    first = packed()
    os.utime(tmp_path / "b", (tmp_path.stat().st_atime, (tmp_path / "b").stat().st_mtime))
    assert packed() == first


def test_a_socket_is_refused_with_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match=r"pipe is not a file, directory or link"):
        pack(tmp_path, "Dockerfile", io.BytesIO())
