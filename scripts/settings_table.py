"""Write the README's table of settings anew from `knoll.settings`: `python scripts/settings_table.py`."""

from pathlib import Path

from knoll import settings

README = Path(__file__).resolve().parent.parent / "README.md"
HEAD = "| variable | default | meaning |\n|---|---|---|\n"


def rows() -> list[str]:
    """One row for each setting, in the order of the processes."""
    groups = [one for one in vars(settings).values() if isinstance(one, type)]
    found = {
        name: field
        for group in groups
        if issubclass(group, settings.CommonSettings)
        for name, field in group.model_fields.items()
    }
    return [
        f"| `KNOLL_{name.upper()}` | `{field.default}` | {' '.join((field.description or '').split())} |\n"
        for name, field in found.items()
    ]


def main() -> None:
    before, _, rest = README.read_text().partition(HEAD)
    _, _, after = rest.partition("\n\n")
    README.write_text(f"{before}{HEAD}{''.join(rows())}\n{after}")


if __name__ == "__main__":
    main()
