"""The README tells every setting with its default."""

from pathlib import Path

import pytest

from knoll import settings

README = (Path(__file__).parents[3] / "README.md").read_text()
ALL = {
    name: field
    for group in vars(settings).values()
    if isinstance(group, type) and issubclass(group, settings.CommonSettings)
    for name, field in group.model_fields.items()
}


@pytest.mark.parametrize("name", sorted(ALL))
def test_each_setting_stands_in_the_readme_as_it_is(name: str) -> None:
    row = f"| `KNOLL_{name.upper()}` | `{ALL[name].default}` | {' '.join((ALL[name].description or '').split())} |"
    assert row in README


def test_the_readme_tells_no_setting_that_does_not_exist() -> None:
    told = {line.split("`")[1] for line in README.splitlines() if line.startswith("| `KNOLL_")}
    assert told == {f"KNOLL_{name.upper()}" for name in ALL}
