"""The sandbox's program, byte by byte."""

import errno
import io
import platform
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from autoscaler.runtime.docker.pause_image import layer, program


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_the_program_is_a_well_formed_static_executable(architecture: str, machine: int) -> None:
    content = program(architecture)
    assert content[:5] == b"\x7fELF\x02"
    kind, machine_number, _, entry, headers, _, _, size, each, count = struct.unpack("<HHIQQQIHHH", content[16:58])
    assert (kind, machine_number, headers, size, each, count) == (2, machine, 64, 64, 56, 1)
    load, flags, offset, address, _, in_file, in_memory, align = struct.unpack("<IIQQQQQQ", content[64:120])
    assert (load, flags, offset, in_file, in_memory) == (1, 5, 0, len(content), len(content))
    assert entry == address + 120
    assert address % align == 0
    assert len(content) < 200


def test_the_arm64_loop_goes_back_to_its_first_instruction() -> None:
    instructions = struct.unpack("<7I", program("arm64")[120:])
    branch = instructions[-1]
    assert branch >> 26 == 0b000101
    offset = branch & 0x3FFFFFF
    assert offset - (1 << 26) == -(len(instructions) - 1)
    assert instructions[-2] == 0xD4000001
    assert instructions[0] == 0xD2800000 | 73 << 5 | 8


def test_the_layer_is_the_same_bytes_each_time_and_holds_the_programs() -> None:
    assert layer("amd64") == layer("amd64")
    with tarfile.open(fileobj=io.BytesIO(layer("amd64"))) as archive:
        assert [(member.name, member.mode) for member in archive] == [("pause", 0o755), ("swap", 0o755), ("net", 0o755)]
        for name in ("pause", "swap", "net"):
            assert archive.extractfile(name).read() == program("amd64", name)  # type: ignore[union-attr]


def test_another_architecture_is_refused() -> None:
    with pytest.raises(KeyError):
        program("mips")


on_linux = pytest.mark.skipif(platform.system() != "Linux", reason="the programs speak to the Linux kernel")


def written(directory: Path, name: str) -> str:
    """A program of this machine's architecture as a file."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    path = directory / name
    path.write_bytes(program(architecture, name))
    path.chmod(0o755)
    return str(path)


@on_linux
def test_swap_renames_and_then_removes_files_and_empty_folders_and_passes_over_what_it_cannot(tmp_path: Path) -> None:
    swap = written(tmp_path, "swap")
    new, old = tmp_path / "new", tmp_path / "old"
    new.symlink_to("there")
    old.symlink_to("here")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    (tmp_path / "full/inner").mkdir(parents=True)
    gone = [tmp_path / path for path in ("folder/file", "folder", "absent", "full")]
    other = tmp_path / "other"
    other.touch()
    assert subprocess.run([swap, new, old, other, tmp_path / "moved", "", *gone]).returncode == 0
    assert old.readlink() == Path("there")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["full", "moved", "old", "swap"]
    assert subprocess.run([swap]).returncode == 0
    assert subprocess.run([swap, ""]).returncode == 0


@on_linux
def test_swap_removes_nothing_when_it_cannot_rename_and_ends_with_the_error(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    done = subprocess.run([written(tmp_path, "swap"), tmp_path / "absent", tmp_path / "old", "", kept])
    assert done.returncode == errno.ENOENT
    assert kept.exists()


def test_the_arm64_branches_of_swap_lead_where_they_should() -> None:
    instructions = struct.unpack("<27I", program("arm64", "swap")[120:])
    rename, removals, done, end = 1, 13, 23, 24
    branches = {}
    for index, word in enumerate(instructions):
        if word >> 24 & 0x7F == 0x34:  # cbz
            offset, bits = word >> 5 & 0x7FFFF, 19
        elif word >> 26 == 0b000101:  # b
            offset, bits = word & 0x3FFFFFF, 26
        else:
            continue
        branches[index] = index + (offset - (1 << bits) if offset >> (bits - 1) else offset)
    assert branches == {2: done, 4: removals, 11: rename, 12: end, 14: done, 22: removals}
    assert [instructions[index] for index in (rename, removals, done, end)] == [
        0xF9400281,
        0xF8408E81,
        0xD2800000,
        0xCB0003E0,
    ]


@on_linux
def test_the_program_sleeps_on_this_machine(tmp_path: Path) -> None:
    process = subprocess.Popen([written(tmp_path, "pause")])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    finally:
        process.terminate()
    assert process.wait(5) == -15
