"""Memory of the machine."""

from pathlib import Path

import pytest

from knoll.process.memory import total_and_available


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n", (16 * 1024**2, 8 * 1024**2)),
        ("MemTotal: 16384 kB\n", (0, None)),  # Linux before 3.14
        ("MemTotal:\nMemAvailable: much\n", (0, None)),
        ("", (0, None)),
    ],
)
def test_memory_is_read_as_the_kernel_tells_it(tmp_path: Path, text: str, memory: tuple[int, int | None]) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert total_and_available(tmp_path / "meminfo") == memory


def test_memory_is_unknown_where_there_is_no_such_file(tmp_path: Path) -> None:
    assert total_and_available(tmp_path / "absent") == (0, None)
