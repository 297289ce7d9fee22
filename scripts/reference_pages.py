"""Write the README's table of settings anew from `knoll.process.settings`: `python scripts/settings_table.py`."""

import ast
import inspect
from itertools import pairwise
from pathlib import Path

import msgspec

from knoll.process import settings

README = Path(__file__).resolve().parent.parent / "README.md"
HEAD = "| variable | default | meaning |\n|---|---|---|\n"


def rows() -> list[str]:
    """One row for each setting, in the order of the processes."""
    groups = [one for one in vars(settings).values() if isinstance(one, type)]
    defaults = {
        field.name: field.default
        for group in groups
        if issubclass(group, settings.CommonSettings)
        for field in msgspec.structs.fields(group)
    }
    told = meanings()
    return [
        f"| `{settings.PREFIX}{name.upper()}` | `{default}` | {told[name]} |\n" for name, default in defaults.items()
    ]


def meanings() -> dict[str, str]:
    """What each setting means: the text below it."""
    found = {}
    for group in ast.parse(inspect.getsource(settings)).body:
        if isinstance(group, ast.ClassDef):
            for field, text in pairwise(group.body):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    assert isinstance(text, ast.Expr), f"{field.target.id} has no text"
                    found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def main() -> None:
    before, _, rest = README.read_text().partition(HEAD)
    _, _, after = rest.partition("\n\n")
    README.write_text(f"{before}{HEAD}{''.join(rows())}\n{after}")


if __name__ == "__main__":
    main()
