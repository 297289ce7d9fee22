"""The folder of layers: what is removed, and when."""

import os
from pathlib import Path

from builder.images.layers import KEEP_SECONDS, Layers

NOW = 2_000_000.0


def blob(layers: Layers, name: str, age: float, size: int = 10) -> Path:
    path = layers.folder / "blobs" / "sha256" / name
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - age, NOW - age))
    return path


def left(layers: Layers) -> list[str]:
    return sorted(path.name for path in (layers.folder / "blobs" / "sha256").iterdir())


def test_blobs_that_were_not_used_for_a_day_are_removed(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.prepare()
    blob(layers, "old", KEEP_SECONDS + 1)
    blob(layers, "new", KEEP_SECONDS - 1)
    layers.prune(0, 60, NOW)
    assert left(layers) == ["new"]


def test_above_the_limit_the_least_recently_used_blobs_are_removed_unless_in_use(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.prepare()
    for name, age in (("a", 500), ("b", 400), ("c", 300), ("busy", 10)):
        blob(layers, name, age)
    layers.prune(25, 60, NOW)
    assert left(layers) == ["busy", "c"]
    layers.prune(1, 60, NOW)
    assert left(layers) == ["busy"]


def test_a_missing_folder_is_pruned_without_error(tmp_path: Path) -> None:
    Layers(tmp_path / "missing").prune(1, 60, NOW)
