import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.build import source
from knoll.values.errors import SourceError


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def archive(path: Path, *entries: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for member in entries:
            made.addfile(member, io.BytesIO(b"x" * member.size))
    return path


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(entry("../evil"), id="parent"),
        pytest.param(entry("a/../../evil"), id="parent in the middle"),
        pytest.param(entry("/etc/passwd"), id="absolute"),
        pytest.param(entry("link", tarfile.SYMTYPE, "/etc/passwd"), id="symlink to an absolute path"),
        pytest.param(entry("a/link", tarfile.SYMTYPE, "../../x"), id="symlink out of the source"),
        pytest.param(entry("link", tarfile.LNKTYPE, "../x"), id="hard link out of the source"),
        pytest.param(entry("device", tarfile.CHRTYPE), id="device"),
        pytest.param(entry("pipe", tarfile.FIFOTYPE), id="pipe"),
    ],
)
def test_an_entry_outside_of_the_source_is_refused_by_name(tmp_path: Path, member: tarfile.TarInfo) -> None:
    made = archive(tmp_path / "source.tar", entry("Dockerfile"), member)
    with pytest.raises(SourceError, match="which is refused"):
        source.check(made, "Dockerfile")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_valid_archive_is_accepted_with_any_compression(tmp_path: Path, mode: str) -> None:
    inside = entry("a/link", tarfile.SYMTYPE, "../Dockerfile")
    made = archive(tmp_path / "source.tar", entry("./Dockerfile"), entry("a", tarfile.DIRTYPE), inside, mode=mode)
    source.check(made, "Dockerfile")


def test_the_error_for_a_missing_dockerfile_lists_the_top_level(tmp_path: Path) -> None:
    made = archive(tmp_path / "source.tar", entry("main.go"))
    with pytest.raises(SourceError, match=r"no Dockerfile; its top level has: main\.go"):
        source.check(made, "Dockerfile")


def test_a_dockerfile_in_a_folder_is_found(tmp_path: Path) -> None:
    source.check(archive(tmp_path / "source.tar", entry("docker/Dockerfile")), "./docker/Dockerfile")


@pytest.mark.parametrize("content", [b"", b"not a tar at all" * 100, b"\x1f\x8b broken gzip"])
def test_a_broken_archive_is_refused_as_such(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "source.tar"
    broken.write_bytes(content)
    with pytest.raises(SourceError):
        source.check(broken, "Dockerfile")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    big = entry("big")
    big.size = 100_000
    made = archive(tmp_path / "source.tar", entry("Dockerfile"), big)
    made.write_bytes(made.read_bytes()[:50_000])
    with pytest.raises(SourceError, match="not a readable tar"):
        source.check(made, "Dockerfile")


def test_an_archive_that_is_too_large_when_unpacked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_UNPACKED_BYTES", 1000)
    big = entry("big")
    big.size = 1001
    with pytest.raises(SourceError, match="unpacked"):
        source.check(archive(tmp_path / "source.tar", big), "Dockerfile")


@given(parts=st.lists(st.sampled_from(["a", "..", ".", "b"]), min_size=1, max_size=8))
def test_a_path_is_refused_exactly_when_it_climbs_above_its_root(parts: list[str]) -> None:
    depth = lowest = 0
    for part in parts:
        depth += {"..": -1, ".": 0}.get(part, 1)
        lowest = min(lowest, depth)
    climbs_in_the_end = bool(source.refuse(entry("/".join(parts))))
    # normpath folds `a/..`; a path that dips below its root on the way can never come back into it by name
    assert climbs_in_the_end == (lowest < 0)
