"""The sandbox's program, byte by byte."""

import io
import platform
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from autoscaler.runtime.pause_image import layer, program


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_the_program_is_a_well_formed_static_executable(architecture: str, machine: int) -> None:
    content = program(architecture)
    assert content[:5] == b"\x7fELF\x02"
    kind, found, _, entry, headers, _, _, size, each, count = struct.unpack("<HHIQQQIHHH", content[16:58])
    assert (kind, found, headers, size, each, count) == (2, machine, 64, 64, 56, 1)
    load, flags, offset, address, _, in_file, in_memory, align = struct.unpack("<IIQQQQQQ", content[64:120])
    assert (load, flags, offset, in_file, in_memory) == (1, 5, 0, len(content), len(content))
    assert entry == address + 120
    assert address % align == 0
    assert len(content) < 200


def test_the_arm64_loop_goes_back_to_its_first_instruction() -> None:
    words = struct.unpack("<7I", program("arm64")[120:])
    branch = words[-1]
    assert branch >> 26 == 0b000101
    offset = branch & 0x3FFFFFF
    assert offset - (1 << 26) == -(len(words) - 1)
    assert words[-2] == 0xD4000001
    assert words[0] == 0xD2800000 | 73 << 5 | 8


def test_the_layer_is_the_same_bytes_each_time_and_holds_the_program() -> None:
    assert layer("amd64") == layer("amd64")
    with tarfile.open(fileobj=io.BytesIO(layer("amd64"))) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode) == ("pause", 0o755)
        assert archive.extractfile(member).read() == program("amd64")  # type: ignore[union-attr]


def test_another_architecture_is_refused() -> None:
    with pytest.raises(KeyError):
        program("mips")


@pytest.mark.skipif(platform.system() != "Linux", reason="the program speaks to the Linux kernel")
def test_the_program_sleeps_on_this_machine(tmp_path: Path) -> None:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    path = tmp_path / "pause"
    path.write_bytes(program(architecture))
    path.chmod(0o755)
    process = subprocess.Popen([str(path)])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    finally:
        process.terminate()
    assert process.wait(5) == -15
