"""The README tells every setting with its default."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
ROWS: list[str] = runpy.run_path(str(ROOT / "scripts" / "settings_table.py"))["rows"]()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("`")[1])
def test_each_setting_stands_in_the_readme_as_it_is(row: str) -> None:
    assert row in README


def test_the_readme_tells_no_setting_that_does_not_exist() -> None:
    told = {line.split("`")[1] for line in README.splitlines() if line.startswith("| `KNOLL_")}
    assert told == {row.split("`")[1] for row in ROWS}
